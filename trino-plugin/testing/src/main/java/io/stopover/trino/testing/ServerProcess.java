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

/**
 * A program that a test started. It is ended by its process id, at the latest when the JVM ends.
 */
final class ServerProcess
        implements AutoCloseable
{
    private static final long PATIENCE_SECONDS = 60;

    private final Process process;
    private final Path log;
    private final Thread atExit;

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
        atExit = new Thread(process::destroyForcibly);
        Runtime.getRuntime().addShutdownHook(atExit);
    }

    /** The first line of output for which the condition is true. */
    String awaitLine(Predicate<String> condition)
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(PATIENCE_SECONDS);
        while (true) {
            boolean alive = process.isAlive();
            for (String line : output().split("\n")) {
                if (condition.test(line)) {
                    return line;
                }
            }
            if (!alive || System.nanoTime() > deadline) {
                close();
                throw new IllegalStateException("%s; its output:%n%s".formatted(
                        alive ? "not ready within %s s"
                                .formatted(PATIENCE_SECONDS) : "ended with " + process.exitValue(),
                        output()));
            }
            pause();
        }
    }

    void checkAlive()
    {
        if (!process.isAlive()) {
            throw new IllegalStateException(
                    "ended with %s; its output:%n%s".formatted(process.exitValue(), output()));
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

    /** Asks it to stop; returns at once. */
    void terminate()
    {
        process.destroy();
    }

    /** Its exit value, once it has ended by itself. */
    int awaitExit()
    {
        try {
            if (!process.waitFor(PATIENCE_SECONDS, SECONDS)) {
                throw new IllegalStateException("still runs after %s s; its output:%n%s"
                        .formatted(PATIENCE_SECONDS, output()));
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

    /** As kill -9. */
    void kill()
    {
        process.destroyForcibly();
        awaitEnd();
    }

    /** Asks it to stop, and kills it if it does not. */
    @Override
    public void close()
    {
        process.destroy();
        try {
            if (!process.waitFor(PATIENCE_SECONDS, SECONDS)) {
                process.destroyForcibly();
            }
        }
        catch (InterruptedException e) {
            process.destroyForcibly();
            Thread.currentThread().interrupt();
        }
        awaitEnd();
        try {
            Runtime.getRuntime().removeShutdownHook(atExit);
        }
        catch (IllegalStateException e) {
            // the JVM is ending
        }
    }

    private void awaitEnd()
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
