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
package io.stopover.benchmark;

import java.util.concurrent.atomic.AtomicLong;

/**
 * The most that a number of sinks or sources held, one of them and all together. Each is asked after
 * each page, when Trino asks it too.
 */
final class Peak
{
    private final AtomicLong sum = new AtomicLong();
    private final AtomicLong mostOfOne = new AtomicLong();
    private final AtomicLong mostOfAll = new AtomicLong();

    One one()
    {
        return new One();
    }

    long mostOfOne()
    {
        return mostOfOne.get();
    }

    long mostOfAll()
    {
        return mostOfAll.get();
    }

    /** Used by one thread. */
    final class One
            implements AutoCloseable
    {
        private long last;

        private One() {}

        void now(long bytes)
        {
            if (bytes != last) {
                long all = sum.addAndGet(bytes - last);
                last = bytes;
                mostOfOne.accumulateAndGet(bytes, Math::max);
                mostOfAll.accumulateAndGet(all, Math::max);
            }
        }

        @Override
        public void close()
        {
            now(0);
        }
    }
}
