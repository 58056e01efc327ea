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

import io.airlift.slice.Slice;
import io.airlift.slice.Slices;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.BitSet;
import java.util.SplittableRandom;

/**
 * Pages of a workload, generated from a seed. Each page names its writer and is filled from a pool
 * of random bytes at an offset derived from the writer, so every byte read can be checked at memory
 * speed without retaining what was written.
 */
final class Pages
{
    private static final int HEADER = 24;
    private static final int POOL_OFFSETS = 1 << 16;

    private final Workload workload;
    private final long seed;
    private final byte[] pool;
    /** By task and page number. */
    private final int[][] partitions;
    private final int[] expected;

    Pages(Workload workload, long seed)
    {
        this.workload = workload;
        this.seed = seed;
        this.pool = new byte[POOL_OFFSETS + workload.pageSize()];
        new SplittableRandom(seed).nextBytes(pool);
        this.partitions = new int[workload.tasks()][workload.pagesOfATask()];
        this.expected = new int[workload.partitions()];
        for (int task = 0; task < workload.tasks(); task++) {
            SplittableRandom random = new SplittableRandom(seed + 1 + task);
            for (int number = 0; number < workload.pagesOfATask(); number++) {
                int partition = workload.skewed() && random.nextBoolean()
                        ? 0
                        : random.nextInt(workload.partitions());
                partitions[task][number] = partition;
                expected[partition]++;
            }
        }
    }

    int partition(int task, int number)
    {
        return partitions[task][number];
    }

    Slice page(int task, int number)
    {
        byte[] page = new byte[workload.pageSize()];
        ByteBuffer.wrap(page).putLong(seed).putInt(task).putInt(number).putLong(page.length);
        System.arraycopy(pool, poolOffset(task, number), page, HEADER, page.length - HEADER);
        return Slices.wrappedBuffer(page);
    }

    private int poolOffset(int task, int number)
    {
        long mixed = (seed ^ ((long) task << 32 | number)) * 0x9E37_79B9_7F4A_7C15L;
        return (int) (mixed >>> 48) % POOL_OFFSETS;
    }

    Checker checker(int partition)
    {
        return new Checker(partition);
    }

    /**
     * Checks the pages of one partition, which may arrive in any order: each exactly once and byte
     * for byte.
     */
    final class Checker
    {
        private final int partition;
        private final BitSet seen = new BitSet();
        private int pages;

        private Checker(int partition)
        {
            this.partition = partition;
        }

        void accept(Slice slice)
        {
            byte[] bytes = slice.byteArray();
            int start = slice.byteArrayOffset();
            int size = workload.pageSize();
            if (slice.length() != size) {
                throw mismatch("a page of %s bytes instead of %s".formatted(slice.length(), size));
            }
            ByteBuffer header = ByteBuffer.wrap(bytes, start, HEADER);
            long itsSeed = header.getLong();
            int task = header.getInt();
            int number = header.getInt();
            if (itsSeed != seed || header.getLong() != size
                    || task < 0 || task >= workload.tasks()
                    || number < 0 || number >= workload.pagesOfATask()) {
                throw mismatch("a page that no task wrote");
            }
            if (partitions[task][number] != partition) {
                throw mismatch("page %s of task %s, which is of partition %s"
                        .formatted(number, task, partitions[task][number]));
            }
            int from = poolOffset(task, number);
            if (Arrays.mismatch(bytes, start + HEADER, start + size,
                    pool, from, from + size - HEADER) >= 0) {
                throw mismatch("page %s of task %s is damaged".formatted(number, task));
            }
            int index = task * workload.pagesOfATask() + number;
            if (seen.get(index)) {
                throw mismatch("page %s of task %s was read twice".formatted(number, task));
            }
            seen.set(index);
            pages++;
        }

        void checkComplete()
        {
            if (pages != expected[partition]) {
                throw mismatch("%s pages instead of %s".formatted(pages, expected[partition]));
            }
        }

        private IllegalStateException mismatch(String what)
        {
            return new IllegalStateException("partition %s: %s".formatted(partition, what));
        }
    }
}
