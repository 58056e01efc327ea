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
 * The pages of a workload, made from a seed: each says who wrote it and is filled from a pool of
 * random bytes, from a place that depends on who wrote it. So every byte that is read can be
 * compared with what it must be, at the speed of memory and without keeping what was written.
 */
final class Pages
{
    private static final int HEADER = 24;
    private static final int PLACES = 1 << 16;

    private final Workload workload;
    private final long seed;
    private final byte[] pool;
    /** By task and number of the page. */
    private final int[][] partitions;
    private final int[] expected;

    Pages(Workload workload, long seed)
    {
        this.workload = workload;
        this.seed = seed;
        this.pool = new byte[PLACES + workload.pageSize()];
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
        System.arraycopy(pool, place(task, number), page, HEADER, page.length - HEADER);
        return Slices.wrappedBuffer(page);
    }

    private int place(int task, int number)
    {
        long mixed = (seed ^ ((long) task << 32 | number)) * 0x9E37_79B9_7F4A_7C15L;
        return (int) (mixed >>> 48) % PLACES;
    }

    Checker checker(int partition)
    {
        return new Checker(partition);
    }

    /** Takes the pages of one partition, in any order: each exactly once, each byte right. */
    final class Checker
    {
        private final int partition;
        private final BitSet seen = new BitSet();
        private int pages;

        private Checker(int partition)
        {
            this.partition = partition;
        }

        void take(Slice slice)
        {
            byte[] bytes = slice.byteArray();
            int start = slice.byteArrayOffset();
            int size = workload.pageSize();
            if (slice.length() != size) {
                throw wrong("a page of %s bytes instead of %s".formatted(slice.length(), size));
            }
            ByteBuffer header = ByteBuffer.wrap(bytes, start, HEADER);
            long itsSeed = header.getLong();
            int task = header.getInt();
            int number = header.getInt();
            if (itsSeed != seed || header.getLong() != size
                    || task < 0 || task >= workload.tasks()
                    || number < 0 || number >= workload.pagesOfATask()) {
                throw wrong("a page that nobody wrote");
            }
            if (partitions[task][number] != partition) {
                throw wrong("page %s of task %s, which is of partition %s"
                        .formatted(number, task, partitions[task][number]));
            }
            int from = place(task, number);
            if (Arrays.mismatch(bytes, start + HEADER, start + size,
                    pool, from, from + size - HEADER) >= 0) {
                throw wrong("page %s of task %s is damaged".formatted(number, task));
            }
            int index = task * workload.pagesOfATask() + number;
            if (seen.get(index)) {
                throw wrong("page %s of task %s came twice".formatted(number, task));
            }
            seen.set(index);
            pages++;
        }

        void end()
        {
            if (pages != expected[partition]) {
                throw wrong("%s pages instead of %s".formatted(pages, expected[partition]));
            }
        }

        private IllegalStateException wrong(String what)
        {
            return new IllegalStateException("partition %s: %s".formatted(partition, what));
        }
    }
}
