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
import java.util.LinkedHashSet;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;

import static java.util.Objects.requireNonNull;

/**
 * Writes one attempt: batches in order, one at a time, then finish. Any daemon may accept the first
 * batch; the attempt then stays at that daemon. Requests without a response are repeated: the
 * daemon accepts a batch once, and repeats the answer to a finish. Blocks the calling thread; not
 * thread-safe, except for {@link #declareSink}.
 *
 * <p>An attempt of at most one batch goes to its home first, if it has one. The home is tried once;
 * if it does not commit the attempt in time, all of it is written like any other. The home may
 * commit it nevertheless: a reader then gets one complete copy of the two.
 */
public final class SinkWriter
{
    private final DaemonClient client;
    private final DaemonFailover failover;
    private final Fleet fleet;
    private final SinkId sink;
    /** Another daemon than the preferred one. */
    private final Optional<Daemon> home;
    private final Supplier<Backoff> backoffs;
    private final Cancellation cancellation;
    private final SinkTotals totals = new SinkTotals();
    /** Daemons that may hold the attempt, or pages of it. */
    private final Set<Daemon> touched = new LinkedHashSet<>();
    private final Declaration declaration = new Declaration();
    /** The daemon that accepted the first batch. */
    private Daemon owner;
    /** The daemon that has yet to answer the first batch; null before and afterwards. */
    private volatile Daemon firstBatchDaemon;
    private long operations;
    private long requests;
    private long homeBytes;
    private long otherZoneBytes;

    public SinkWriter(
            DaemonClient client,
            DaemonFailover failover,
            Fleet fleet,
            SinkId sink,
            Optional<Daemon> home,
            Supplier<Backoff> backoffs,
            Cancellation cancellation)
    {
        this.client = requireNonNull(client, "client is null");
        this.failover = requireNonNull(failover, "failover is null");
        this.fleet = requireNonNull(fleet, "fleet is null");
        this.sink = requireNonNull(sink, "sink is null");
        this.home = requireNonNull(home, "home is null");
        this.backoffs = requireNonNull(backoffs, "backoffs is null");
        this.cancellation = requireNonNull(cancellation, "cancellation is null");
    }

    /**
     * Declares the attempt at its home, or else at the daemon that the first batch would go to now.
     * The daemon then checks in advance that the exchange is open, and uses declarations to decide
     * which sinks may share a segment.
     *
     * <p>It is only a hint. It may run concurrently with every other method, so it is not cancelled
     * with them: it ends within the request timeout. A daemon that does not answer by then is hung:
     * the first batch goes to another daemon, long before its write timeout.
     */
    public void declareSink()
    {
        Daemon target = home.orElseGet(failover.daemons()::preferred);
        if (!declaration.start(target)) {
            return;
        }
        failover.tryOnce(target, daemon -> {
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
        declaration.sent().ifPresent(this::withdrawAt);
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

    /** Page bytes that were committed at the home. */
    public long homeBytes()
    {
        return homeBytes;
    }

    /** Page bytes that a daemon of another zone accepted. */
    public long otherZoneBytes()
    {
        return otherZoneBytes;
    }

    /** Whether a daemon has accepted a batch: then the attempt stays there. */
    public boolean hasOwner()
    {
        return owner != null;
    }

    /**
     * Writes an attempt that has at most one batch, and returns after it is committed. No batch was
     * sent before.
     */
    public void commit(Optional<PageBatch> batch)
            throws IOException
    {
        if (home.isPresent() && failover.daemons().isInRotation(home.get())
                && commitAtHome(home.get(), batch)) {
            return;
        }
        if (batch.isPresent()) {
            send(batch.get());
        }
        finish();
        // releases its memory
        home.filter(touched::contains).ifPresent(daemon -> failover.inBackground(daemon, _ -> {
            client.abort(daemon, sink, new Cancellation());
            return null;
        }));
        withdraw();
    }

    private boolean commitAtHome(Daemon daemon, Optional<PageBatch> batch)
            throws CancelledException
    {
        SinkTotals whole = new SinkTotals();
        batch.ifPresent(whole::add);
        try {
            failover.once(daemon, _ -> {
                if (batch.isPresent()) {
                    sendToHome(daemon, batch.get());
                }
                requests++;
                client.finishAtHome(daemon, sink, whole, cancellation);
                return null;
            });
        }
        catch (CancelledException e) {
            throw e;
        }
        catch (IOException e) {
            // logged; the attempt has a fallback
            return false;
        }
        operations += whole.batches() + 1;
        homeBytes = whole.bytes();
        return true;
    }

    private void sendToHome(Daemon daemon, PageBatch batch)
            throws IOException
    {
        try {
            sendFirst(daemon, batch, true);
        }
        catch (ProblemException e) {
            // it did not accept the batch
            touched.remove(daemon);
            throw e;
        }
    }

    public void send(PageBatch batch)
            throws IOException
    {
        operations++;
        if (owner == null) {
            owner = failover.call(
                    daemon -> sendFirst(daemon, batch, false), backoffs.get(), cancellation);
            withdraw();
        }
        else {
            failover.callPinned(
                    pin(owner, false),
                    daemon -> {
                        requests++;
                        client.pages(daemon, sink, totals.batches(), batch, cancellation);
                        return null;
                    },
                    backoffs.get(),
                    cancellation);
            countZone(owner, batch);
        }
        totals.add(batch);
    }

    /** Withdraws what was declared at a daemon that will not get the attempt. */
    private void withdraw()
    {
        declaration.withdrawUnlessAt(touched).ifPresent(this::withdrawAt);
    }

    private void withdrawAt(Daemon daemon)
    {
        failover.inBackground(daemon, _ -> {
            client.withdrawSink(daemon, sink, new Cancellation());
            return null;
        });
    }

    private void countZone(Daemon daemon, PageBatch batch)
    {
        if (fleet.isOtherZone(daemon)) {
            otherZoneBytes += batch.pageBytes();
        }
    }

    /**
     * If a daemon accepted the batch but its response is lost, another daemon starts a second sink
     * for the attempt. Only the one that is finished becomes visible; the other is deleted with the
     * exchange.
     */
    private Daemon sendFirst(Daemon daemon, PageBatch batch, boolean atHome)
            throws IOException
    {
        requests++;
        boolean added = touched.add(daemon);
        firstBatchDaemon = daemon;
        try {
            if (atHome) {
                client.pagesAtHome(daemon, sink, batch, cancellation);
            }
            else {
                client.pages(daemon, sink, 0, batch, cancellation);
            }
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
        countZone(daemon, batch);
        return daemon;
    }

    private Pin pin(Daemon daemon, boolean confirmable)
    {
        return new Pin(
                daemon, confirmable, cause -> new DaemonGoneException(sink, daemon, cause));
    }

    /** Returns after the attempt is committed. */
    public void finish()
            throws IOException
    {
        operations++;
        if (owner == null) {
            touched.add(failover.call(this::finishAt, backoffs.get(), cancellation));
        }
        else {
            failover.callPinned(pin(owner, true), this::finishAt, backoffs.get(), cancellation);
        }
    }

    private Daemon finishAt(Daemon daemon)
            throws IOException
    {
        requests++;
        client.finish(daemon, sink, totals, cancellation);
        return daemon;
    }

    /**
     * Aborts the attempt at every daemon that may hold it, and withdraws its declaration.
     * The exchange's close deletes what remains if this fails.
     */
    public void abort(Backoff backoff, Cancellation abortCancellation)
            throws IOException
    {
        withdraw();
        IOException failure = null;
        for (Daemon daemon : touched) {
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
