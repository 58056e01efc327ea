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

import java.util.List;

/**
 * Amount and shape of the data: each task spreads the same number of bytes over all partitions, in
 * pages of one size.
 *
 * @param skewed half of all pages go to partition 0
 * @param elsewhere a daemon other than the writing one serves the reads
 */
record Workload(
        String name,
        Storage storage,
        int tasks,
        int partitions,
        long taskBytes,
        int pageSize,
        boolean skewed,
        boolean elsewhere)
{
    enum Storage
    {
        /**
         * Local directory with each contender's defaults: Stopover syncs before it acknowledges.
         */
        LOCAL,
        /** Local directory without fsync. */
        LOCAL_UNSYNCED,
        S3,
        /** S3 with 40 ms added latency and a request rate limit. */
        SLOW_S3
    }

    private static final int KIB = 1 << 10;
    private static final long MIB = 1 << 20;

    private static final Workload WIDE =
            new Workload("", Storage.S3, 32, 50, 32 * MIB, 64 * KIB, false, false);
    private static final Workload SMALL =
            new Workload("", Storage.S3, 200, 50, MIB, 16 * KIB, false, false);

    private static final Workload ELSEWHERE =
            new Workload("", Storage.S3, 32, 50, 32 * MIB, 64 * KIB, false, true);

    static final List<Workload> ALL = List.of(
            WIDE.on("A", Storage.LOCAL),
            WIDE.on("A-unsynced", Storage.LOCAL_UNSYNCED),
            WIDE.on("B", Storage.S3),
            SMALL.on("C", Storage.S3),
            WIDE.on("D-B", Storage.SLOW_S3),
            SMALL.on("D-C", Storage.SLOW_S3),
            new Workload(
                    "E", Storage.LOCAL, 100, 2000, 16 * MIB, 16 * KIB, false, false),
            new Workload("F", Storage.S3, 32, 50, 32 * MIB, 64 * KIB, true, false),
            new Workload(
                    "G", Storage.S3, 16, 50, 64 * MIB, (int) (16 * MIB), false, false),
            new Workload("H", Storage.LOCAL, 32, 50, 8 * MIB, KIB, false, false),
            ELSEWHERE.on("I", Storage.S3),
            ELSEWHERE.on("D-I", Storage.SLOW_S3),
            new Workload("J", Storage.S3, 1000, 50, 256 * KIB, 4 * KIB, false, false));

    private Workload on(String newName, Storage newStorage)
    {
        return new Workload(
                newName, newStorage, tasks, partitions, taskBytes, pageSize, skewed, elsewhere);
    }

    static Workload named(String name)
    {
        return ALL.stream().filter(workload -> workload.name.equals(name)).findFirst()
                .orElseThrow(() -> new IllegalArgumentException(
                        "unknown workload %s: expected one of %s"
                                .formatted(name, ALL.stream().map(Workload::name).toList())));
    }

    /** The same workload with fewer tasks, at least two. */
    Workload scaled(double factor)
    {
        int fewer = (int) Math.max(Math.min(2, tasks), Math.round(tasks * factor));
        return new Workload(
                name, storage, fewer, partitions, taskBytes, pageSize, skewed, elsewhere);
    }

    int pagesOfATask()
    {
        return Math.toIntExact(taskBytes / pageSize);
    }

    long bytes()
    {
        return (long) tasks * pagesOfATask() * pageSize;
    }

    double gigabytes()
    {
        return bytes() / 1e9;
    }

    String describe()
    {
        return "%s: %s, %s tasks x %s partitions x %s KiB, pages of %s KiB%s%s".formatted(
                name,
                storage.toString().toLowerCase().replace('_', ' '),
                tasks,
                partitions,
                taskBytes / KIB,
                pageSize / KIB,
                skewed ? ", half of them in one partition" : "",
                elsewhere ? ", read through another daemon" : "");
    }
}
