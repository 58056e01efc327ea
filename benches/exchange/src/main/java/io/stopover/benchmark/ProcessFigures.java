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

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** CPU time and memory of a process, from Linux's procfs. */
final class ProcessFigures
{
    /** USER_HZ: procfs reports times in hundredths of a second. */
    private static final double TICKS_PER_SECOND = 100;

    private ProcessFigures() {}

    /** CPU seconds of all threads, including terminated ones. */
    static double cpuSeconds(long pid)
    {
        String stat = read(Path.of("/proc/%s/stat".formatted(pid)));
        // the process name in parentheses may contain spaces
        String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
        return (Long.parseLong(fields[11]) + Long.parseLong(fields[12])) / TICKS_PER_SECOND;
    }

    static double cpuSeconds(List<Long> pids)
    {
        return pids.stream().mapToDouble(ProcessFigures::cpuSeconds).sum();
    }

    /** Peak resident bytes since {@link #resetPeak}. */
    static long peakMemory(long pid)
    {
        return read(Path.of("/proc/%s/status".formatted(pid))).lines()
                .filter(line -> line.startsWith("VmHWM:"))
                .mapToLong(line -> Long.parseLong(line.replaceAll("[^0-9]", "")) * 1024)
                .findFirst()
                .orElseThrow();
    }

    static void resetPeak(long pid)
    {
        try {
            Files.writeString(Path.of("/proc/%s/clear_refs".formatted(pid)), "5");
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static String read(Path path)
    {
        try {
            return Files.readString(path);
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
