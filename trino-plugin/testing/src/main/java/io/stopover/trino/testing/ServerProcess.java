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

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;

import static java.util.concurrent.TimeUnit.SECONDS;

/** A process started by a test, stopped by its process id at the latest when the JVM exits. */
final class ServerProcess
        implements AutoCloseable
{
    private static final long TIMEOUT_SECONDS = 60;

    private final Process process;
    private final Path log;
    private final Thread shutdownHook;

    ServerProcess(List<String> command, Map<String, String> environment, Path log)
    {
        this.log = log;
        ProcessBuilder builder = new ProcessBuilder(command)
                .redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(log.toFile()));
        builder.environment().putAll(environment);
        try {
            process = builder.start();
        }
        catch (IOException e) {
            throw new UncheckedIOException("cannot start " + command, e);
        }
        shutdownHook = new Thread(process::destroyForcibly);
        Runtime.getRuntime().addShutdownHook(shutdownHook);
    }

    /** Waits for an output line that satisfies the condition and returns it. */
    String awaitLine(Predicate<String> condition)
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(TIMEOUT_SECONDS);
        while (true) {
            boolean alive = process.isAlive();
            for (String line : output().split("\n")) {
                if (condition.test(line)) {
                    return line;
                }
            }
            if (!alive || System.nanoTime() > deadline) {
                close();
                String status = alive
                        ? "not ready within %s s".formatted(TIMEOUT_SECONDS)
                        : "exited with code %s".formatted(process.exitValue());
                throw new IllegalStateException(
                        "%s; output:%n%s".formatted(status, output()));
            }
            pause();
        }
    }

    void checkAlive()
    {
        if (!process.isAlive()) {
            throw new IllegalStateException(
                    "exited with code %s; output:%n%s".formatted(process.exitValue(), output()));
        }
    }

    String output()
    {
        try {
            return Files.readString(log);
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Sends SIGTERM and returns. */
    void terminate()
    {
        process.destroy();
    }

    /** Waits for the process to exit by itself and returns its exit code. */
    int awaitExit()
    {
        try {
            if (!process.waitFor(TIMEOUT_SECONDS, SECONDS)) {
                throw new IllegalStateException("still running after %s s; output:%n%s"
                        .formatted(TIMEOUT_SECONDS, output()));
            }
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
        return process.exitValue();
    }

    long pid()
    {
        return process.pid();
    }

    /** Sends SIGKILL and waits for the process to exit. */
    void kill()
    {
        process.destroyForcibly();
        awaitTermination();
    }

    /** Sends SIGTERM, then SIGKILL if the process does not exit in time. */
    @Override
    public void close()
    {
        process.destroy();
        try {
            if (!process.waitFor(TIMEOUT_SECONDS, SECONDS)) {
                process.destroyForcibly();
            }
        }
        catch (InterruptedException e) {
            process.destroyForcibly();
            Thread.currentThread().interrupt();
        }
        awaitTermination();
        try {
            Runtime.getRuntime().removeShutdownHook(shutdownHook);
        }
        catch (IllegalStateException e) {
            // the JVM is shutting down
        }
    }

    private void awaitTermination()
    {
        process.onExit().join();
    }

    static void pause()
    {
        try {
            Thread.sleep(20);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }
}
