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

import java.util.concurrent.ThreadLocalRandom;
import java.util.function.LongSupplier;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

/**
 * When to try again: pauses that grow with some chance in them, until a time is used up in which
 * nothing succeeded. One per operation, used by one thread.
 */
public final class Backoff
{
    /** The delays, without the time that an operation may use up. */
    public record Delays(Duration initial, Duration max) {}

    private final LongSupplier nanoTime;
    private final long initialDelay;
    private final long maxDelay;
    private final long budget;
    private long nextDelay;
    private long start;
    private int failures;

    public Backoff(Delays delays, Duration budget, LongSupplier nanoTime)
    {
        this.nanoTime = nanoTime;
        this.initialDelay = delays.initial().roundTo(NANOSECONDS);
        this.maxDelay = delays.max().roundTo(NANOSECONDS);
        this.budget = budget.roundTo(NANOSECONDS);
        progressed();
    }

    /** Something succeeded: time and delays begin anew. */
    public void progressed()
    {
        start = nanoTime.getAsLong();
        nextDelay = initialDelay;
        failures = 0;
    }

    public int failures()
    {
        return failures;
    }

    /** Waits before the next try; false when there shall be none. */
    public boolean pause(Cancellation cancellation)
            throws CancelledException
    {
        failures++;
        long remaining = budget - (nanoTime.getAsLong() - start);
        if (remaining <= 0) {
            return false;
        }
        long delay = nextDelay / 2 + ThreadLocalRandom.current().nextLong(nextDelay / 2 + 1);
        nextDelay = Math.min(nextDelay * 2, maxDelay);
        try {
            if (!cancellation.pause(Math.min(delay, remaining))) {
                throw new CancelledException();
            }
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new CancelledException();
        }
        return true;
    }
}
