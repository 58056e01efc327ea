package io.stopover.trino;

import io.airlift.log.Logger;

import java.util.concurrent.ExecutorService;

import static java.util.concurrent.Executors.newThreadPerTaskExecutor;

/**
 * Virtual threads for everything that waits for the network, so that no thread of Trino does. Whoever starts one sees to it
 * that it ends.
 */
public final class Workers
{
    private static final Logger log = Logger.get(Workers.class);

    private final ExecutorService executor = newThreadPerTaskExecutor(
            Thread.ofVirtual().name("stopover-", 0).factory());

    /** Starts a task that reports its failures itself. */
    void start(Runnable task)
    {
        executor.execute(() -> {
            try {
                task.run();
            }
            catch (Throwable t) {
                log.error(t, "A task ended with a failure that nobody handles");
                throw t;
            }
        });
    }

    void stop()
    {
        executor.shutdownNow();
    }
}
