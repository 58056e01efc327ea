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
 * Peak memory of a set of sinks or sources: of the largest one and of all together. Memory is
 * sampled after each page, as Trino samples it.
 */
final class Peak
{
    private final AtomicLong sum = new AtomicLong();
    private final AtomicLong largest = new AtomicLong();
    private final AtomicLong total = new AtomicLong();

    One one()
    {
        return new One();
    }

    long largest()
    {
        return largest.get();
    }

    long total()
    {
        return total.get();
    }

    /** Not thread-safe. */
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
                largest.accumulateAndGet(bytes, Math::max);
                total.accumulateAndGet(all, Math::max);
            }
        }

        @Override
        public void close()
        {
            now(0);
        }
    }
}
