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

import io.airlift.log.Logger;
import io.stopover.trino.wire.PageBatch;
import io.stopover.trino.wire.SinkTotals;

import java.io.IOException;
import java.net.URI;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.function.Supplier;

import static java.util.Objects.requireNonNull;

/**
 * The conversation of one attempt with its daemon: batches in order, one at a time, then finish.
 * The daemon that took the first batch keeps the attempt; until then any daemon will do. A request
 * whose answer was lost is repeated: the daemon takes a batch once, and finish gives the same
 * answer again. Blocks; used by one thread at a time.
 */
public final class SinkWriter
{
    private static final Logger log = Logger.get(SinkWriter.class);
    /**
     * A port that refuses connections so often in a row belongs to a daemon that is gone, and its
     * memory with it.
     */
    private static final int GONE_AFTER_REFUSALS = 3;

    private final DaemonClient client;
    private final DaemonFailover failover;
    private final SinkId sink;
    private final Supplier<Backoff> backoffs;
    private final Cancellation cancellation;
    private final SinkTotals totals = new SinkTotals();
    /** Daemons that may know of the attempt. */
    private final Set<URI> touched = new LinkedHashSet<>();
    private URI home;
    private long requests;
    private long operations;

    public SinkWriter(
            DaemonClient client,
            DaemonFailover failover,
            SinkId sink,
            Supplier<Backoff> backoffs,
            Cancellation cancellation)
    {
        this.client = requireNonNull(client, "client is null");
        this.failover = requireNonNull(failover, "failover is null");
        this.sink = requireNonNull(sink, "sink is null");
        this.backoffs = requireNonNull(backoffs, "backoffs is null");
        this.cancellation = requireNonNull(cancellation, "cancellation is null");
    }

    /**
     * Tells the daemon to which the first batch would go now that it is coming, so that it need not
     * find out then whether the exchange is open, and those who finish there need not wait for
     * whoever does not come. Nothing depends on it, and it may run beside everything else, so it is
     * not cancelled with that either: it ends by itself soon.
     */
    public void declareSink()
    {
        URI daemon = failover.daemons().candidates().getFirst();
        try {
            client.declareSink(daemon, sink, new Cancellation());
        }
        catch (IOException | RuntimeException e) {
            log.debug(e, "%s was not told that %s is coming", daemon, sink);
        }
    }

    /** Requests that carried a batch or a finish. */
    public long requests()
    {
        return requests;
    }

    public long retries()
    {
        return Math.max(0, requests - operations);
    }

    public void send(PageBatch batch)
            throws IOException
    {
        operations++;
        if (home == null) {
            home = failover.call(daemon -> first(daemon, batch), backoffs.get(), cancellation);
        }
        else {
            repeatAtHome(() -> {
                requests++;
                client.pages(home, sink, totals.batches(), batch, cancellation);
            });
        }
        totals.add(batch);
    }

    /**
     * The first batch. A lost answer may mean that this daemon has it. Sent to another one it
     * begins another sink, and only the one that is finished is ever visible: what the first one
     * holds is collected with the exchange.
     */
    private URI first(URI daemon, PageBatch batch)
            throws IOException
    {
        touched.add(daemon);
        requests++;
        try {
            client.pages(daemon, sink, 0, batch, cancellation);
        }
        catch (DaemonUnreachableException e) {
            touched.remove(daemon);
            throw e;
        }
        return daemon;
    }

    public void finish()
            throws IOException
    {
        operations++;
        if (home == null) {
            failover.call(this::finishAt, backoffs.get(), cancellation);
            return;
        }
        Backoff backoff = backoffs.get();
        boolean mayHaveCommitted = false;
        while (true) {
            try {
                finishAt(home);
                return;
            }
            catch (DaemonUnreachableException e) {
                if (mayHaveCommitted && committedElsewhere()) {
                    return;
                }
                if (!mayHaveCommitted && backoff.failures() + 1 >= GONE_AFTER_REFUSALS) {
                    throw gone(e);
                }
                pauseOrThrow(backoff, failover.noteFailure(home, e));
            }
            catch (IOException e) {
                mayHaveCommitted = true;
                pauseOrThrow(backoff, failover.noteFailure(home, e));
            }
        }
    }

    private Void finishAt(URI daemon)
            throws IOException
    {
        touched.add(daemon);
        requests++;
        client.finish(daemon, sink, totals, cancellation);
        return null;
    }

    /** Whether another daemon finds the commit that this sink's own daemon could not tell about. */
    private boolean committedElsewhere()
            throws CancelledException
    {
        for (URI daemon : failover.daemons().uris()) {
            if (!daemon.equals(home)) {
                try {
                    requests++;
                    client.finish(daemon, sink, totals, cancellation);
                    return true;
                }
                catch (CancelledException e) {
                    throw e;
                }
                catch (IOException e) {
                    log.debug(e, "%s does not know whether %s is committed", daemon, sink);
                }
            }
        }
        return false;
    }

    /**
     * Tells every daemon that may know of the attempt to forget it; gives up soon, as the exchange
     * is closed in the end.
     */
    public void abort(Backoff backoff, Cancellation ownCancellation)
            throws IOException
    {
        for (URI daemon : touched) {
            while (true) {
                try {
                    client.abort(daemon, sink, ownCancellation);
                    break;
                }
                catch (DaemonUnreachableException e) {
                    break;
                }
                catch (IOException e) {
                    if (e instanceof ProblemException problem && !problem.problem().retryable()) {
                        break;
                    }
                    if (!backoff.pause(ownCancellation)) {
                        throw e;
                    }
                }
            }
        }
    }

    private interface Request
    {
        void send()
                throws IOException;
    }

    private void repeatAtHome(Request request)
            throws IOException
    {
        Backoff backoff = backoffs.get();
        int refusals = 0;
        while (true) {
            try {
                request.send();
                return;
            }
            catch (DaemonUnreachableException e) {
                refusals++;
                if (refusals >= GONE_AFTER_REFUSALS) {
                    throw gone(e);
                }
                pauseOrThrow(backoff, failover.noteFailure(home, e));
            }
            catch (IOException e) {
                refusals = 0;
                pauseOrThrow(backoff, failover.noteFailure(home, e));
            }
        }
    }

    private DaemonGoneException gone(DaemonUnreachableException cause)
    {
        failover.daemons().down(home);
        return new DaemonGoneException(sink, home, cause);
    }

    private void pauseOrThrow(Backoff backoff, IOException failure)
            throws IOException
    {
        if (!backoff.pause(cancellation)) {
            throw failure;
        }
    }
}
