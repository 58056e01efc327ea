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

import java.util.concurrent.ThreadFactory;

/**
 * Virtual threads for everything that waits for the network, so that no thread of Trino does.
 * Whoever starts one sees to it that it ends; after the manager's shutdown all requests fail at
 * once, and with them what is left of these threads.
 */
public final class VirtualThreads
{
    private static final Logger log = Logger.get(VirtualThreads.class);

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
