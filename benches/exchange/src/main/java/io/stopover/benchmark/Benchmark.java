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

import io.trino.spi.QueryId;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.SequencedMap;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;

import static java.nio.file.StandardOpenOption.APPEND;
import static java.nio.file.StandardOpenOption.CREATE;

/**
 * Compares exchange managers through Trino's SPI. The contenders run the same workloads
 * alternately, round by round, in one JVM. Prints medians and ratios, and fails if any byte read
 * differs from the byte written.
 */
public final class Benchmark
{
    private static final double MIB = 1 << 20;
    private static final double GB = 1e9;

    private final Options options;
    private final PluginFolder stock;
    private final PluginFolder stopover;
    private int queries;

    private Benchmark(Options options)
    {
        this.options = options;
        this.stock = new PluginFolder(options.stockPlugin());
        this.stopover = new PluginFolder(options.stopoverPlugin());
    }

    public static void main(String[] arguments)
    {
        Options options;
        try {
            options = Options.parse(List.of(arguments));
        }
        catch (IllegalArgumentException e) {
            System.err.println("error: " + e.getMessage());
            System.err.print(Options.USAGE.formatted(Workload.ALL.stream()
                    .map(workload -> "    " + workload.describe())
                    .collect(Collectors.joining("\n"))));
            System.exit(2);
            return;
        }
        try {
            new Benchmark(options).run();
        }
        catch (Throwable t) {
            t.printStackTrace();
            System.exit(1);
        }
        // plugins may leave non-daemon threads running
        System.exit(0);
    }

    private void run()
    {
        Runtime runtime = Runtime.getRuntime();
        System.out.printf(
                "%s processors, heap of %.0f MiB, Java %s; %s writers, %s readers, %s rounds"
                        + " after %s to warm up%n",
                runtime.availableProcessors(), runtime.maxMemory() / MIB, Runtime.version(),
                options.writers(), options.readers(), options.rounds(), options.warmUps());
        for (Workload workload : options.workloads()) {
            compare(workload.scaled(options.scale()));
        }
    }

    private void compare(Workload workload)
    {
        System.out.printf("%n%s (%.2f GB)%n", workload.describe(), workload.gigabytes());
        Pages pages = new Pages(workload, workload.name().hashCode());
        System.out.printf("generating and checking pages, no exchange: %.2f CPU s per GB%n",
                baselineCost(workload, pages));
        Figures figures = new Figures(contenders().map(Contender::name).toList());
        try (Stage stage = new Stage(workload, options.folder())) {
            List<Side> sides = contenders().map(contender -> contender.daemons() == 0
                            ? stage.stock(stock)
                            : stage.stopover(stopover, contender.name(), contender.daemons()))
                    .toList();
            StoreLog log = stage.storeLog();
            for (int round = -options.warmUps(); round < options.rounds(); round++) {
                for (Side side : sides) {
                    SequencedMap<String, Double> measured =
                            measure(stage, side, workload, pages, log);
                    if (round >= 0) {
                        figures.add(side.name(), measured);
                    }
                }
            }
        }
        System.out.print(figures.table());
        options.raw().ifPresent(file -> append(file, figures.raw(workload.name())));
    }

    /** @param daemons number of daemons; 0 for the stock manager */
    private record Contender(String name, int daemons) {}

    private Stream<Contender> contenders()
    {
        List<Integer> daemons = options.daemons();
        return options.sides().stream().flatMap(side -> side.equals("stock")
                ? Stream.of(new Contender(side, 0))
                : daemons.stream().map(count -> new Contender(
                        daemons.size() == 1 ? side : side + "-" + count, count)));
    }

    /** CPU seconds per GB that this program spends by itself, without an exchange. */
    private double baselineCost(Workload workload, Pages pages)
    {
        double before = ProcessFigures.cpuSeconds(ProcessHandle.current().pid());
        List<Pages.Checker> checkers = IntStream.range(0, workload.partitions())
                .mapToObj(pages::checker).toList();
        for (int task = 0; task < workload.tasks(); task++) {
            for (int number = 0; number < workload.pagesOfATask(); number++) {
                checkers.get(pages.partition(task, number)).accept(pages.page(task, number));
            }
        }
        checkers.forEach(Pages.Checker::checkComplete);
        double after = ProcessFigures.cpuSeconds(ProcessHandle.current().pid());
        return (after - before) / workload.gigabytes();
    }

    private SequencedMap<String, Double> measure(
            Stage stage, Side side, Workload workload, Pages pages, StoreLog log)
    {
        System.gc();
        queries++;
        String query = "bench_%s_%s".formatted(ProcessHandle.current().pid(), queries);
        log.drain(side.name());
        long refusedBefore = stage.refused();
        side.daemons().forEach(ProcessFigures::resetPeak);
        DaemonMetrics.Puts putsBefore = side.puts().puts();
        Cpu before = Cpu.now(stage, side);

        // closing is asynchronous: its cost shows in the request counts, not in CPU time
        Cpu[] after = new Cpu[1];
        Shuffle shuffle =
                new Shuffle(side, workload, pages, options.writers(), options.readers());
        Shuffle.Outcome outcome =
                shuffle.run(new QueryId(query), () -> after[0] = Cpu.now(stage, side));
        stage.awaitRemoval(query);
        Cpu cpu = after[0].minus(before);
        DaemonMetrics.Puts puts = side.puts().puts().minus(putsBefore);
        return figures(side, workload, outcome, cpu, puts, log.drain(side.name()),
                stage.refused() - refusedBefore);
    }

    private static SequencedMap<String, Double> figures(
            Side side,
            Workload workload,
            Shuffle.Outcome outcome,
            Cpu cpu,
            DaemonMetrics.Puts puts,
            StoreLog.Requests requests,
            long refused)
    {
        double[] finishes = Figures.sorted(outcome.finishes());
        SequencedMap<String, Double> figures = new LinkedHashMap<>();
        figures.put("write s", outcome.write());
        figures.put("handles s", outcome.plan());
        figures.put("read s", outcome.read());
        figures.put("total s", outcome.total());
        figures.put("write MB/s", workload.bytes() / 1e6 / outcome.write());
        figures.put("read MB/s", workload.bytes() / 1e6 / outcome.read());
        figures.put("finish p50 ms", 1000 * Figures.percentile(finishes, 0.5));
        figures.put("finish p99 ms", 1000 * Figures.percentile(finishes, 0.99));
        figures.put("daemon put, mean ms", 1000 * puts.seconds() / Math.max(1, puts.count()));
        figures.put("slowest put at the server ms", (double) requests.slowestPut());
        figures.put("client CPU s", cpu.client());
        figures.put("daemon CPU s", cpu.daemons());
        figures.put("client + daemon CPU s/GB",
                (cpu.client() + cpu.daemons()) / (workload.bytes() / GB));
        figures.put("store CPU s", cpu.store());
        figures.put("largest sink MiB", outcome.sinks().largest() / MIB);
        figures.put("all sinks MiB", outcome.sinks().total() / MIB);
        figures.put("all sources MiB", outcome.sources().total() / MIB);
        figures.put("daemon peak MiB", side.daemonPeak().orElse(0) / MIB);
        figures.put("PUT-class requests", (double) requests.puts());
        figures.put("LIST among them", (double) requests.lists());
        figures.put("GET-class requests", (double) requests.gets());
        figures.put("of markers", (double) requests.markerGets());
        figures.put("of segments", (double) requests.segmentGets());
        figures.put("DELETE requests", (double) requests.deletes());
        figures.put("refused with 503", (double) refused);
        figures.put("handles", (double) outcome.handles());
        figures.put("handles KiB", outcome.handleBytes() / 1024.0);
        return figures;
    }

    private static void append(Path file, String text)
    {
        try {
            Files.writeString(file, text, CREATE, APPEND);
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** CPU seconds used so far. */
    private record Cpu(double client, double daemons, double store)
    {
        static Cpu now(Stage stage, Side side)
        {
            return new Cpu(
                    ProcessFigures.cpuSeconds(ProcessHandle.current().pid()),
                    ProcessFigures.cpuSeconds(side.daemons()),
                    ProcessFigures.cpuSeconds(stage.storeProcesses()));
        }

        Cpu minus(Cpu earlier)
        {
            return new Cpu(
                    client - earlier.client, daemons - earlier.daemons, store - earlier.store);
        }
    }
}
