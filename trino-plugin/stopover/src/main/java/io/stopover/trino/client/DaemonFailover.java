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
package io.stopover.trino.client;

import com.google.inject.Inject;
import io.airlift.log.Logger;
import io.stopover.trino.client.FailoverPolicy.Ask;
import io.stopover.trino.client.FailoverPolicy.GiveUp;
import io.stopover.trino.client.FailoverPolicy.Pause;
import io.stopover.trino.client.FailoverPolicy.Pin;

import java.io.IOException;

import static java.util.Objects.requireNonNull;

/**
 * Executes the decisions of {@link FailoverPolicy}: the only place that repeats requests. Every
 * operation must tolerate repetition. Blocks the calling thread.
 */
public final class DaemonFailover
{
    public interface Operation<T>
    {
        T ask(Daemon daemon)
                throws IOException;
    }

    private static final Logger debug = Logger.get(DaemonFailover.class);

    private final Daemons daemons;
    private final DaemonProbe probe;
    private final FailureLog log;

    @Inject
    public DaemonFailover(Daemons daemons, DaemonProbe probe, FailureLog log)
    {
        this.daemons = requireNonNull(daemons, "daemons is null");
        this.probe = requireNonNull(probe, "probe is null");
        this.log = requireNonNull(log, "log is null");
    }

    public Daemons daemons()
    {
        return daemons;
    }

    /**
     * Executes an operation at any daemon.
     *
     * @throws CancelledException if cancelled
     * @throws RetriesExhaustedException if retries did not help; at least one daemon did not reject
     *         the operation
     * @throws IOException the rejection, if every daemon rejected the operation for good
     */
    public <T> T call(Operation<T> operation, Backoff backoff, Cancellation cancellation)
            throws IOException
    {
        return run(FailoverPolicy.anyDaemon(daemons, backoff), operation, cancellation);
    }

    /** Executes an operation at the daemon that holds the pages of an open sink. */
    <T> T callPinned(Pin pin, Operation<T> operation, Backoff backoff, Cancellation cancellation)
            throws IOException
    {
        return run(FailoverPolicy.pinned(daemons, backoff, pin), operation, cancellation);
    }

    private <T> T run(FailoverPolicy policy, Operation<T> operation, Cancellation cancellation)
            throws IOException
    {
        while (true) {
            startProbes();
            switch (policy.next()) {
                case Pause(long nanos) -> cancellation.pauseOrThrow(nanos);
                case GiveUp(IOException failure) -> throw failure;
                case Ask(Daemon daemon) -> {
                    try {
                        T result = operation.ask(daemon);
                        if (policy.succeeded(daemon)) {
                            log.returned(daemon);
                        }
                        return result;
                    }
                    catch (IOException e) {
                        log.failed(daemon, e, policy.failed(daemon, e));
                    }
                }
            }
        }
    }

    /**
     * Executes an operation once at one daemon. A failure counts against the daemon; the caller has
     * a fallback.
     */
    public <T> T once(Daemon daemon, Operation<T> operation)
            throws IOException
    {
        startProbes();
        long start = daemons.now();
        T result = attempt(daemon, operation);
        if (daemons.succeeded(daemon, start)) {
            log.returned(daemon);
        }
        return result;
    }

    private <T> T attempt(Daemon daemon, Operation<T> operation)
            throws IOException
    {
        long start = daemons.now();
        try {
            return operation.ask(daemon);
        }
        catch (IOException e) {
            log.failed(daemon, e, daemons.failed(daemon, FailureKind.of(e), start));
            throw e;
        }
    }

    /** As {@link #tryOnce}, on a separate thread. */
    void inBackground(Daemon daemon, Operation<?> operation)
    {
        Thread.ofVirtual().name("stopover-background").start(() -> tryOnce(daemon, operation));
    }

    /**
     * Executes an operation once at one daemon. Nothing depends on its success, except that a
     * failure counts against the daemon.
     */
    public void tryOnce(Daemon daemon, Operation<?> operation)
    {
        try {
            attempt(daemon, operation);
        }
        catch (IOException e) {
            debug.debug(e, "A request that nothing depends on failed");
        }
    }

    /** Probes the daemons whose cooldown has ended, each on a short-lived thread. */
    private void startProbes()
    {
        for (Daemon daemon : daemons.claimProbes()) {
            Thread.ofVirtual().name("stopover-probe").start(() -> {
                boolean ready = false;
                try {
                    ready = probe.isReady(daemon);
                }
                finally {
                    if (daemons.probed(daemon, ready)) {
                        log.returned(daemon);
                    }
                }
            });
        }
    }
}
