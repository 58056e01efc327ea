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

import io.stopover.trino.client.FailoverPolicy.Pin;
import io.stopover.trino.wire.PageBatch;
import io.stopover.trino.wire.SinkTotals;

import java.io.IOException;
import java.net.URI;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.function.Supplier;

import static java.util.Objects.requireNonNull;

/**
 * Writes one attempt: batches in order, one at a time, then finish. Any daemon may accept the first
 * batch; the attempt then stays at that daemon. Requests without a response are repeated: the
 * daemon accepts a batch once, and repeats the answer to a finish. Blocks the calling thread; not
 * thread-safe, except for {@link #declareSink}.
 */
public final class SinkWriter
{
    private final DaemonClient client;
    private final DaemonFailover failover;
    private final SinkId sink;
    private final Supplier<Backoff> backoffs;
    private final Cancellation cancellation;
    private final SinkTotals totals = new SinkTotals();
    /** Daemons that may hold pages of the attempt. */
    private final Set<URI> touched = new LinkedHashSet<>();
    /** The daemon that accepted the first batch. */
    private URI home;
    /** The daemon that has yet to answer the first batch; null before and afterwards. */
    private volatile URI firstBatchDaemon;
    private long operations;
    private long requests;

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
     * Declares the attempt at the daemon that the first batch would go to now. The daemon can then
     * check in advance that the exchange is open, and knows which sinks may share a segment.
     *
     * <p>Nothing depends on its success. It may run concurrently with every other method, so it is
     * not cancelled with them: it ends within the request timeout. A daemon that does not answer by
     * then is hung: the first batch goes to another daemon, long before its write timeout.
     */
    public void declareSink()
    {
        failover.tryOnce(daemon -> {
            try {
                client.declareSink(daemon, sink, new Cancellation());
            }
            catch (RequestFailedException e) {
                if (e.kind() == FailureKind.TIMED_OUT && daemon.equals(firstBatchDaemon)) {
                    cancellation.abortRequest();
                }
                throw e;
            }
            return null;
        });
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
            home = failover.call(
                    daemon -> sendFirst(daemon, batch), backoffs.get(), cancellation);
        }
        else {
            failover.callPinned(
                    pin(home, false),
                    daemon -> {
                        requests++;
                        client.pages(daemon, sink, totals.batches(), batch, cancellation);
                        return null;
                    },
                    backoffs.get(),
                    cancellation);
        }
        totals.add(batch);
    }

    /**
     * If a daemon accepted the batch but its response is lost, another daemon starts a second sink
     * for the attempt. Only the one that is finished becomes visible; the other is deleted with the
     * exchange.
     */
    private URI sendFirst(URI daemon, PageBatch batch)
            throws IOException
    {
        requests++;
        boolean added = touched.add(daemon);
        firstBatchDaemon = daemon;
        try {
            client.pages(daemon, sink, 0, batch, cancellation);
        }
        catch (RequestFailedException e) {
            if (added && e.isUnsent()) {
                touched.remove(daemon);
            }
            throw e;
        }
        finally {
            firstBatchDaemon = null;
        }
        return daemon;
    }

    private Pin pin(URI daemon, boolean confirmable)
    {
        return new Pin(
                daemon, confirmable, cause -> new DaemonGoneException(sink, daemon, cause));
    }

    /** Returns after the attempt is committed. */
    public void finish()
            throws IOException
    {
        operations++;
        if (home == null) {
            failover.call(this::finishAt, backoffs.get(), cancellation);
        }
        else {
            failover.callPinned(pin(home, true), this::finishAt, backoffs.get(), cancellation);
        }
    }

    private Void finishAt(URI daemon)
            throws IOException
    {
        requests++;
        client.finish(daemon, sink, totals, cancellation);
        return null;
    }

    /**
     * Aborts the attempt at every daemon that may hold pages of it. The exchange's close deletes
     * what remains if this fails.
     */
    public void abort(Backoff backoff, Cancellation abortCancellation)
            throws IOException
    {
        IOException failure = null;
        for (URI daemon : touched) {
            try {
                failover.callPinned(
                        pin(daemon, false),
                        _ -> {
                            client.abort(daemon, sink, abortCancellation);
                            return null;
                        },
                        backoff,
                        abortCancellation);
            }
            catch (IOException e) {
                if (failure != null) {
                    e.addSuppressed(failure);
                }
                failure = e;
            }
        }
        if (failure != null) {
            throw failure;
        }
    }
}
