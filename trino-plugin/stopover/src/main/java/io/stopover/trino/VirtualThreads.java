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
package io.stopover.trino;

import io.airlift.log.Logger;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadFactory;
import java.util.function.Consumer;

import static java.util.Objects.requireNonNull;

/**
 * Runs everything that waits for the network, so that no thread of Trino does. A task cannot fail
 * silently: whatever it throws reaches its failure handler, and the futures that depend on the task
 * complete even if the handler fails too.
 */
public final class VirtualThreads
{
    private static final Logger log = Logger.get(VirtualThreads.class);

    private final ThreadFactory threads;

    public VirtualThreads()
    {
        this(Thread.ofVirtual().name("stopover-", 0).factory());
    }

    VirtualThreads(ThreadFactory threads)
    {
        this.threads = requireNonNull(threads, "threads is null");
    }

    interface Task
    {
        void run()
                throws Exception;
    }

    /**
     * Runs {@code task} on a new thread. If the task, or the start of its thread, fails with any
     * {@link Throwable}, {@code onFailure} handles it and {@code dependents} that are still pending
     * complete exceptionally. If the thread cannot be started, this happens on the calling thread,
     * so {@code onFailure} must not block.
     */
    void start(Task task, Consumer<Throwable> onFailure, CompletableFuture<?>... dependents)
    {
        try {
            threads.newThread(() -> run(task, onFailure, dependents)).start();
        }
        catch (Throwable t) {
            fail(t, onFailure, dependents);
        }
    }

    private static void run(
            Task task, Consumer<Throwable> onFailure, CompletableFuture<?>... dependents)
    {
        try {
            task.run();
        }
        catch (Throwable t) {
            fail(t, onFailure, dependents);
        }
    }

    private static void fail(
            Throwable failure, Consumer<Throwable> onFailure, CompletableFuture<?>... dependents)
    {
        try {
            onFailure.accept(failure);
        }
        catch (Throwable t) {
            failure.addSuppressed(t);
            log.error(failure, "A failure handler failed");
        }
        finally {
            for (CompletableFuture<?> dependent : dependents) {
                dependent.completeExceptionally(failure);
            }
        }
    }
}
