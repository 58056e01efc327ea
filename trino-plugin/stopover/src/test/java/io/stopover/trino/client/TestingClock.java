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

import java.util.function.LongSupplier;

import static java.util.concurrent.TimeUnit.SECONDS;

/** A manual clock that starts negative, as {@link System#nanoTime} may. */
final class TestingClock
        implements LongSupplier
{
    private long now = -SECONDS.toNanos(100);

    @Override
    public long getAsLong()
    {
        return now;
    }

    void advance(long nanos)
    {
        now += nanos;
    }

    void advanceSeconds(double seconds)
    {
        now += (long) (seconds * SECONDS.toNanos(1));
    }
}
