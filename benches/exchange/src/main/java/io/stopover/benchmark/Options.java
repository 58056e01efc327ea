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

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/** Command-line options. */
record Options(
        List<Workload> workloads,
        List<String> sides,
        int rounds,
        int warmUps,
        double scale,
        int writers,
        int readers,
        List<Integer> daemons,
        Path folder,
        Optional<Path> raw,
        Path stockPlugin,
        Path stopoverPlugin)
{
    static final String USAGE = """
            --workloads A,B,...     which (default A,B,C; "all" for all):
            %s
            --sides stock,stopover  which exchange managers
            --rounds N              measured rounds, both sides in turn (default 3)
            --warm-ups N            rounds before that are not measured (default 1)
            --scale X               share of the tasks, for quick runs (default 1)
            --writers N             tasks that write at a time (default 4)
            --readers N             partitions that are read at a time (default 4)
            --daemons N,M,...       how many Stopover daemons: each with its own plugin instance,
                                    all named to all, and its share of writers and readers;
                                    several numbers are compared in turn (default 1)
            --folder DIR            where data goes (default: the system's temporary folder)
            --raw FILE              also write each round's figures there, tab separated
            """;

    static Options parse(List<String> arguments)
    {
        Options options = new Options(
                List.of(Workload.named("A"), Workload.named("B"), Workload.named("C")),
                List.of("stock", "stopover"),
                3,
                1,
                1,
                4,
                4,
                List.of(1),
                Path.of(System.getProperty("java.io.tmpdir")),
                Optional.empty(),
                Path.of("."),
                Path.of("."));
        List<String> left = new ArrayList<>(arguments);
        while (!left.isEmpty()) {
            String name = left.removeFirst();
            if (left.isEmpty()) {
                throw new IllegalArgumentException(name + " requires a value");
            }
            options = options.with(name, left.removeFirst());
        }
        return options;
    }

    private Options with(String option, String value)
    {
        return switch (option) {
            case "--workloads" -> withWorkloads(value.equals("all")
                    ? Workload.ALL
                    : Arrays.stream(value.split(",")).map(Workload::named).toList());
            case "--sides" -> withSides(List.of(value.split(",")));
            case "--rounds" -> withCounts(atLeast(1, value), warmUps, writers, readers);
            case "--warm-ups" -> withCounts(rounds, atLeast(0, value), writers, readers);
            case "--writers" -> withCounts(rounds, warmUps, atLeast(1, value), readers);
            case "--readers" -> withCounts(rounds, warmUps, writers, atLeast(1, value));
            case "--daemons" -> withDaemons(
                    Arrays.stream(value.split(",")).map(number -> atLeast(1, number)).toList());
            case "--scale" -> withScale(Double.parseDouble(value));
            case "--folder" -> withPaths(Path.of(value), raw, stockPlugin, stopoverPlugin);
            case "--raw" ->
                    withPaths(folder, Optional.of(Path.of(value)), stockPlugin, stopoverPlugin);
            case "--stock-plugin" -> withPaths(folder, raw, Path.of(value), stopoverPlugin);
            case "--stopover-plugin" -> withPaths(folder, raw, stockPlugin, Path.of(value));
            default -> throw new IllegalArgumentException("unknown option " + option);
        };
    }

    private static int atLeast(int least, String value)
    {
        int number = Integer.parseInt(value);
        if (number < least) {
            throw new IllegalArgumentException("%s is less than %s".formatted(value, least));
        }
        return number;
    }

    private Options withWorkloads(List<Workload> chosen)
    {
        return new Options(chosen, sides, rounds, warmUps, scale, writers, readers, daemons,
                folder, raw, stockPlugin, stopoverPlugin);
    }

    private Options withSides(List<String> chosen)
    {
        for (String side : chosen) {
            if (!List.of("stock", "stopover").contains(side)) {
                throw new IllegalArgumentException(
                        "unknown side %s: expected stock or stopover".formatted(side));
            }
        }
        return new Options(workloads, chosen, rounds, warmUps, scale, writers, readers, daemons,
                folder, raw, stockPlugin, stopoverPlugin);
    }

    private Options withCounts(
            int newRounds, int newWarmUps, int newWriters, int newReaders)
    {
        return new Options(workloads, sides, newRounds, newWarmUps, scale, newWriters, newReaders,
                daemons, folder, raw, stockPlugin, stopoverPlugin);
    }

    private Options withDaemons(List<Integer> newDaemons)
    {
        return new Options(workloads, sides, rounds, warmUps, scale, writers, readers, newDaemons,
                folder, raw, stockPlugin, stopoverPlugin);
    }

    private Options withScale(double newScale)
    {
        return new Options(workloads, sides, rounds, warmUps, newScale, writers, readers,
                daemons, folder, raw, stockPlugin, stopoverPlugin);
    }

    private Options withPaths(
            Path newFolder, Optional<Path> newRaw, Path newStock, Path newStopover)
    {
        return new Options(workloads, sides, rounds, warmUps, scale, writers, readers,
                daemons, newFolder, newRaw, newStock, newStopover);
    }
}
