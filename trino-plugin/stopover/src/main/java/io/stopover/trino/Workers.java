package io.stopover.trino;

import io.airlift.log.Logger;

import java.util.concurrent.ThreadFactory;

/**
 * Virtual threads for everything that waits for the network, so that no thread of Trino does.
 * Whoever starts one sees to it that it ends; after the manager's shutdown all requests fail at
 * once, and with them what is left of these threads.
 */
public final class Workers
{
    private static final Logger log = Logger.get(Workers.class);

    private final ThreadFactory threads = Thread.ofVirtual().name("stopover-", 0).factory();

    /** Starts a task that reports its failures itself. */
    void start(Runnable task)
    {
        threads.newThread(() -> {
            try {
                task.run();
            }
            catch (Throwable t) {
                log.error(t, "A task ended with a failure that nobody handles");
            }
        }).start();
    }
}
