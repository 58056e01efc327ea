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

import io.stopover.trino.testing.DaemonProcess;
import io.stopover.trino.testing.S3Server;
import io.stopover.trino.testing.SlowStore;
import io.trino.spi.exchange.ExchangeManager;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.IntStream;
import java.util.stream.Stream;

import static java.util.stream.Collectors.joining;

/**
 * Test bed of one workload: the store, two base directories per contender, and the Stopover
 * daemons. Closing it stops every process and removes every file.
 */
final class Stage
        implements AutoCloseable
{
    private static final int BASE_DIRECTORIES = 2;

    private final Workload workload;
    private final Path folder;
    private final Optional<S3Server> s3;
    private final Optional<SlowStore> proxy;
    private final List<Path> data = new ArrayList<>();
    private final List<DaemonProcess> daemons = new ArrayList<>();
    private final List<ExchangeManager> managers = new ArrayList<>();

    /** @param parent directory on the disk under test */
    Stage(Workload workload, Path parent)
    {
        this.workload = workload;
        try {
            Files.createDirectories(parent);
            folder = Files.createTempDirectory(parent, "stopover-benchmark");
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        s3 = isLocal() ? Optional.empty() : Optional.of(new S3Server(folder));
        proxy = workload.storage() == Workload.Storage.SLOW_S3
                ? Optional.of(new SlowStore(folder, s3.orElseThrow().endpoint()))
                : Optional.empty();
    }

    private boolean isLocal()
    {
        return workload.storage() == Workload.Storage.LOCAL
                || workload.storage() == Workload.Storage.LOCAL_UNSYNCED;
    }

    private String endpoint()
    {
        return proxy.map(SlowStore::endpoint).or(() -> s3.map(S3Server::endpoint))
                .orElseThrow().toString();
    }

    /** Creates a base directory and returns its URI. */
    private String baseDirectory(String side, int number)
    {
        String name = "%s-%s".formatted(side, number);
        if (s3.isPresent()) {
            Path bucket = s3.get().createBucket(name);
            data.add(bucket);
            if (side.equals("stock")) {
                keepPrefix(bucket);
            }
            return "s3://%s/exchange".formatted(name);
        }
        Path directory = folder.resolve(name);
        data.add(directory);
        try {
            return Files.createDirectories(directory).toUri().toString();
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /**
     * Keeps the prefix from becoming empty, as Stopover does itself: this S3 server may fail a put
     * while another client deletes the last object of its prefix.
     */
    private static void keepPrefix(Path bucket)
    {
        try {
            Path prefix = Files.createDirectories(bucket.resolve("exchange"));
            Files.createFile(prefix.resolve(".keep"));
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    Side stock(PluginFolder plugin)
    {
        Map<String, String> properties = new HashMap<>();
        properties.put("exchange.base-directories", IntStream.range(0, BASE_DIRECTORIES)
                .mapToObj(number -> baseDirectory("stock", number))
                .collect(joining(",")));
        properties.put("exchange.max-output-partition-count",
                String.valueOf(Math.max(50, workload.partitions())));
        properties.put("exchange.max-page-storage-size", "32MB");
        if (s3.isPresent()) {
            properties.put("exchange.s3.endpoint", endpoint());
            properties.put("exchange.s3.region", S3Server.REGION);
            properties.put("exchange.s3.aws-access-key", S3Server.ACCESS_KEY);
            properties.put("exchange.s3.aws-secret-key", S3Server.SECRET_KEY);
            properties.put("exchange.s3.path-style-access", "true");
        }
        ExchangeManager manager = create(plugin, "filesystem", properties);
        return new Side("stock", new HandleCodec(plugin), List.of(manager), List.of(manager),
                List.of(), new DaemonMetrics(List.of()));
    }

    /** @param nodes number of writing nodes, each with a daemon and a plugin instance */
    Side stopover(PluginFolder plugin, String name, int nodes)
    {
        StringBuilder configuration = new StringBuilder();
        for (int number = 0; number < BASE_DIRECTORIES; number++) {
            configuration.append(baseDirectoryTable(name, number));
        }
        List<DaemonProcess> writing = startDaemons(name + "-w", nodes, configuration.toString());
        List<DaemonProcess> reading = workload.elsewhere()
                ? startDaemons(name + "-r", nodes, configuration.toString())
                : writing;
        List<ExchangeManager> writers = managers(plugin, writing);
        List<ExchangeManager> readers =
                workload.elsewhere() ? managers(plugin, reading) : writers;
        List<DaemonProcess> all = Stream.concat(writing.stream(), reading.stream()).distinct()
                .toList();
        return new Side(name, new HandleCodec(plugin), writers, readers,
                all.stream().map(DaemonProcess::pid).toList(),
                new DaemonMetrics(all.stream().map(DaemonProcess::uri).toList()));
    }

    private List<DaemonProcess> startDaemons(String name, int count, String configuration)
    {
        List<DaemonProcess> started = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            started.add(new DaemonProcess(folder, name + number, configuration));
            daemons.add(started.getLast());
        }
        return started;
    }

    /** A plugin instance beside each daemon: it names its own daemon first, then all others. */
    private List<ExchangeManager> managers(PluginFolder plugin, List<DaemonProcess> nodes)
    {
        return IntStream.range(0, nodes.size())
                .mapToObj(own -> IntStream.range(0, nodes.size())
                        .mapToObj(next -> nodes.get((own + next) % nodes.size()).uri().toString())
                        .collect(joining(",")))
                .map(uris -> create(plugin, "stopover", Map.of("stopover.uris", uris)))
                .toList();
    }

    private String baseDirectoryTable(String side, int number)
    {
        String table = "[[base_directory]]\nname = \"base-%s\"\nuri = \"%s\"\n"
                .formatted(number, baseDirectory(side, number));
        if (s3.isPresent()) {
            table += """
                    endpoint = "%s"
                    region = "%s"
                    access_key_id = "%s"
                    secret_access_key = "%s"
                    allow_http = true
                    path_style = true
                    upload_checksum = "crc64nvme"
                    """.formatted(
                    endpoint(), S3Server.REGION, S3Server.ACCESS_KEY, S3Server.SECRET_KEY);
        }
        if (workload.storage() == Workload.Storage.LOCAL_UNSYNCED) {
            table += "fsync = false\n";
        }
        return table + "\n";
    }

    private ExchangeManager create(
            PluginFolder plugin, String managerName, Map<String, String> properties)
    {
        ExchangeManager manager = plugin.create(managerName, properties);
        managers.add(manager);
        return manager;
    }

    StoreLog storeLog()
    {
        return new StoreLog(s3.map(S3Server::accessLog));
    }

    /** Process ids of the S3 server and its proxy. */
    List<Long> storeProcesses()
    {
        return Stream.concat(s3.map(S3Server::pid).stream(), proxy.map(SlowStore::pid).stream())
                .toList();
    }

    long refused()
    {
        return proxy.map(SlowStore::refused).orElse(0L);
    }

    /** Waits until no path under the base directories contains {@code text}. */
    void awaitRemoval(String text)
    {
        long deadline = System.nanoTime() + 60_000_000_000L;
        while (data.stream().anyMatch(directory -> holds(directory, text))) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(text + " was not removed within 60 s");
            }
            try {
                Thread.sleep(50);
            }
            catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException(e);
            }
        }
    }

    private static boolean holds(Path directory, String text)
    {
        try (Stream<Path> files = Files.walk(directory)) {
            return files.anyMatch(file ->
                    file.toString().contains(text) && Files.isRegularFile(file));
        }
        catch (UncheckedIOException | IOException e) {
            // a directory was deleted during the walk
            return true;
        }
    }

    @Override
    public void close()
    {
        managers.forEach(ExchangeManager::shutdown);
        daemons.forEach(DaemonProcess::close);
        proxy.ifPresent(SlowStore::close);
        s3.ifPresent(S3Server::close);
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(file);
            }
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
