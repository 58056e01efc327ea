/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import io.airlift.units.Duration;

import java.util.OptionalLong;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.DoubleSupplier;
import java.util.function.LongSupplier;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

/**
 * Retry budget of one operation: exponential delays with jitter, until the budget has passed since
 * the first failure. The duration of the first request does not count, and the first repetition is
 * granted even without a budget. Pure, and not thread-safe.
 */
public final class Backoff
{
    /** Delay before the first repetition, and the longest one. */
    public record Delays(Duration initial, Duration max) {}

    private final LongSupplier nanoTime;
    private final DoubleSupplier random;
    private final long initialDelay;
    private final long maxDelay;
    private final long budget;
    private long nextDelay;
    private long firstFailure;
    private boolean failing;
    private boolean repeated;

    public Backoff(Delays delays, Duration budget, LongSupplier nanoTime)
    {
        this(delays, budget, nanoTime, () -> ThreadLocalRandom.current().nextDouble());
    }

    /** @param random jitter between 0 and 1 */
    Backoff(Delays delays, Duration budget, LongSupplier nanoTime, DoubleSupplier random)
    {
        this.nanoTime = nanoTime;
        this.random = random;
        this.initialDelay = delays.initial().roundTo(NANOSECONDS);
        this.maxDelay = delays.max().roundTo(NANOSECONDS);
        this.budget = budget.roundTo(NANOSECONDS);
        progressed();
    }

    /** Restores the full budget: part of the operation succeeded. */
    public void progressed()
    {
        nextDelay = initialDelay;
        failing = false;
        repeated = false;
    }

    /** A request failed; the first failure starts the budget. */
    void failed()
    {
        if (!failing) {
            failing = true;
            firstFailure = nanoTime.getAsLong();
        }
    }

    /** Nanoseconds. */
    long initialDelay()
    {
        return initialDelay;
    }

    /** Delay before the next repetition in nanoseconds; empty if the budget is exhausted. */
    OptionalLong nextDelay()
    {
        long remaining = budget - (failing ? nanoTime.getAsLong() - firstFailure : 0);
        if (repeated && remaining <= 0) {
            return OptionalLong.empty();
        }
        long delay = (long) (nextDelay * (1 + random.getAsDouble()) / 2);
        nextDelay = Math.min(nextDelay * 2, maxDelay);
        if (repeated) {
            delay = Math.min(delay, remaining);
        }
        repeated = true;
        return OptionalLong.of(delay);
    }
}
