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
package io.stopover.trino.testing;

import com.sun.management.HotSpotDiagnosticMXBean;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.function.Supplier;
import java.util.stream.Stream;

import static java.util.concurrent.TimeUnit.SECONDS;

/** What a plugin leaves behind in this JVM: virtual threads and open connections. */
public final class Leftovers
{
    private Leftovers() {}

    /** The virtual threads of the plugin, each with its stack. */
    public static List<String> threads()
    {
        try {
            Path folder = Files.createTempDirectory("stopover-threads");
            Path dump = folder.resolve("threads.txt");
            ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class).dumpThreads(
                    dump.toString(), HotSpotDiagnosticMXBean.ThreadDumpFormat.TEXT_PLAIN);
            List<String> threads = Stream.of(Files.readString(dump).split("\\n\\n"))
                    .filter(thread -> thread.matches("(?s)#\\d+ \"stopover[^\\n]* virtual.*"))
                    .toList();
            Files.delete(dump);
            Files.delete(folder);
            return threads;
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Open connections to the ports: states 01 (established) and 08 (close wait). */
    public static List<String> connections(Set<Integer> ports)
    {
        List<String> connections = new ArrayList<>();
        for (String file : List.of("/proc/self/net/tcp", "/proc/self/net/tcp6")) {
            try {
                if (!Files.exists(Path.of(file))) {
                    continue;
                }
                for (String line : Files.readAllLines(Path.of(file))) {
                    String[] columns = line.strip().split("\\s+");
                    boolean open = columns[3].equals("01") || columns[3].equals("08");
                    if (open && ports.stream().anyMatch(
                            port -> columns[2].endsWith(":%04X".formatted(port)))) {
                        connections.add(line);
                    }
                }
            }
            catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
        return connections;
    }

    /** Waits until nothing is left; returns what is left after the time. */
    public static List<?> await(Supplier<? extends List<?>> left, long seconds)
            throws InterruptedException
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(seconds);
        while (!left.get().isEmpty() && System.nanoTime() < deadline) {
            Thread.sleep(100);
        }
        return left.get();
    }
}
