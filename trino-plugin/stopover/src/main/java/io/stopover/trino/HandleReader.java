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

import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.CancelledException;
import io.stopover.trino.client.Daemon;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.ProblemException;
import io.stopover.trino.client.RetriesExhaustedException;
import io.stopover.trino.wire.MalformedStreamException;
import io.stopover.trino.wire.ReadStream;

import java.io.IOException;
import java.util.Optional;
import java.util.function.Predicate;

import static io.stopover.trino.wire.Counts.count;
import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * Reads all pages of one handle, each exactly once, in the daemon's order. After an interruption or
 * damaged data, the read resumes after the last valid page, at the same daemon or another one;
 * each page received restarts the retry time. The handle is complete when the end record is valid
 * and the totals match those of the handle. Blocks; used by one thread.
 */
final class HandleReader
        implements ReadStream.Visitor
{
    enum Reservation
    {
        GRANTED, CLOSED, TIMED_OUT
    }

    /** The consumer of the pages. */
    interface Target
    {
        /** Fails if the final selector excludes the attempt. */
        void checkSelected(int task, int attempt);

        /** Reserves buffer space for a page; waits for it for up to {@code nanos}. */
        Reservation reserve(int bytes, long nanos)
                throws InterruptedException;

        void release(int bytes);

        /** Hands over a page for which space is reserved. */
        void deliver(byte[] page);
    }

    /** Data that is still damaged in this many consecutive reads is damaged in the store. */
    private static final int MAX_DAMAGED_READS = 4;
    /**
     * How long a reader without buffer space holds its connection. A daemon serves a limited number
     * of concurrent reads, and the consumer may be waiting for one that is queued there.
     */
    private static final long MAX_STALL_NANOS = SECONDS.toNanos(5);

    private final DaemonClient client;
    private final DaemonFailover failover;
    private final Predicate<Daemon> otherZone;
    private final Optional<Daemon> holder;
    private final StopoverSourceHandle handle;
    private final Target target;
    private final Backoff backoff;
    private final Cancellation cancellation;
    private long pages;
    private long bytes;
    private int damagedReads;
    private long requests;
    private long pauses;
    private long homeBytes;
    private long otherZoneBytes;

    /** @param holder a daemon that is tried first, once, because it has the pages in memory */
    HandleReader(
            Services services,
            Optional<Daemon> holder,
            StopoverSourceHandle handle,
            Target target,
            Backoff backoff,
            Cancellation cancellation)
    {
        this.client = services.client();
        this.failover = services.failover();
        this.otherZone = services.fleet()::isOtherZone;
        this.holder = requireNonNull(holder, "holder is null");
        this.handle = requireNonNull(handle, "handle is null");
        this.target = requireNonNull(target, "target is null");
        this.backoff = requireNonNull(backoff, "backoff is null");
        this.cancellation = requireNonNull(cancellation, "cancellation is null");
    }

    void readAll()
            throws IOException
    {
        Optional<Daemon> hot = holder;
        while (true) {
            try {
                if (hot.isPresent() && readHot(hot.get())) {
                    return;
                }
                hot = Optional.empty();
                failover.call(
                        daemon -> readRemaining(daemon, client::read), backoff, cancellation);
                return;
            }
            catch (ReadPausedException e) {
                pauses++;
                reserve(e.pageSize(), Long.MAX_VALUE);
                target.release(e.pageSize());
                backoff.progressed();
            }
        }
    }

    private boolean readHot(Daemon daemon)
            throws IOException
    {
        long before = bytes;
        try {
            failover.once(daemon, _ -> readRemaining(daemon, client::readHot));
            return true;
        }
        catch (CancelledException | ReadPausedException e) {
            throw e;
        }
        catch (IOException e) {
            // logged; the other daemons read the rest
            return false;
        }
        finally {
            homeBytes += bytes - before;
        }
    }

    /** Bytes read from the daemon that had them in memory. */
    long homeBytes()
    {
        return homeBytes;
    }

    /** Bytes read from daemons of another zone. */
    long otherZoneBytes()
    {
        return otherZoneBytes;
    }

    long requests()
    {
        return requests;
    }

    /** Requests after the first one, except those that resumed a paused read. */
    long retries()
    {
        return Math.max(0, requests - 1 - pauses);
    }

    private interface Request
    {
        void send(
                Daemon daemon,
                String handle,
                long skip,
                ReadStream.Visitor visitor,
                Cancellation cancellation)
                throws IOException;
    }

    private Void readRemaining(Daemon daemon, Request request)
            throws IOException
    {
        requests++;
        long before = bytes;
        try {
            request.send(daemon, handle.handle(), pages, this, cancellation);
            if (pages != handle.pages() || bytes != handle.bytes()) {
                throw new MalformedStreamException(
                        "%s returned %s, %s for a handle of %s, %s".formatted(
                                daemon,
                                count(pages, "page"),
                                count(bytes, "byte"),
                                count(handle.pages(), "page"),
                                count(handle.bytes(), "byte")));
            }
            return null;
        }
        catch (MalformedStreamException e) {
            throw damaged(e);
        }
        catch (ProblemException e) {
            throw e.problem().is("data-corrupt") ? damaged(e) : e;
        }
        finally {
            if (otherZone.test(daemon)) {
                otherZoneBytes += bytes - before;
            }
        }
    }

    private IOException damaged(IOException failure)
    {
        damagedReads++;
        if (damagedReads < MAX_DAMAGED_READS) {
            return failure;
        }
        return new RetriesExhaustedException(
                "damaged in %s consecutive reads".formatted(damagedReads), failure);
    }

    @Override
    public void block(int partition, int task, int attempt)
            throws IOException
    {
        if (partition != handle.partition()) {
            throw new MalformedStreamException(
                    "block of partition %s in the response to a handle of partition %s"
                            .formatted(partition, handle.partition()));
        }
        target.checkSelected(task, attempt);
    }

    @Override
    public void reserve(int size)
            throws IOException
    {
        if (pages >= handle.pages()) {
            throw new MalformedStreamException(
                    "more pages than the %s of the handle".formatted(handle.pages()));
        }
        reserve(size, MAX_STALL_NANOS);
    }

    private void reserve(int size, long nanos)
            throws IOException
    {
        Reservation reservation;
        try {
            reservation = target.reserve(size, nanos);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new CancelledException();
        }
        switch (reservation) {
            case GRANTED -> {}
            case CLOSED -> throw new CancelledException();
            case TIMED_OUT -> throw new ReadPausedException(size);
        }
    }

    @Override
    public void page(byte[] page)
    {
        pages++;
        bytes += page.length;
        damagedReads = 0;
        backoff.progressed();
        target.deliver(page);
    }

    @Override
    public void release(int size)
    {
        target.release(size);
    }
}
