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
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.ProblemException;
import io.stopover.trino.client.RetriesExhaustedException;
import io.stopover.trino.wire.MalformedStreamException;
import io.stopover.trino.wire.ReadStream;

import java.io.IOException;
import java.net.URI;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * Reads one handle to its end: every page once, in the daemon's order. A read that breaks off, or
 * brings damaged bytes, is resumed behind the last good page, at the same daemon or another; time
 * for that begins anew with each page that comes. All pages came when the end record was right and
 * the sums are those of the handle. Blocks; lives in one thread.
 */
final class HandleReader
        implements ReadStream.Visitor
{
    enum Room
    {
        TAKEN, CLOSED, NONE_YET
    }

    /** Where pages go. */
    interface Target
    {
        boolean isWanted(int task, int attempt);

        /**
         * Takes room for a page, or says why not: nobody wants pages any more, or there was no room
         * for so long.
         */
        Room awaitRoom(int bytes, long nanos)
                throws InterruptedException;

        void giveBack(int bytes);

        void deliver(byte[] page);
    }

    /** Bytes that are damaged again and again are damaged where they lie. */
    private static final int MAX_MALFORMED = 4;
    /**
     * A reader that finds no room for so long lets its connection go. A daemon serves a limited
     * number of reads at a time, and whom the consumer waits for may be in that queue.
     */
    private static final long MAX_STALL_NANOS = SECONDS.toNanos(5);

    private final DaemonClient client;
    private final DaemonFailover failover;
    private final StopoverSourceHandle handle;
    private final Target target;
    private final Backoff backoff;
    private final Cancellation cancellation;
    private long pages;
    private long bytes;
    private boolean wanted;
    private int malformed;

    HandleReader(
            DaemonClient client,
            DaemonFailover failover,
            StopoverSourceHandle handle,
            Target target,
            Backoff backoff,
            Cancellation cancellation)
    {
        this.client = requireNonNull(client, "client is null");
        this.failover = requireNonNull(failover, "failover is null");
        this.handle = requireNonNull(handle, "handle is null");
        this.target = requireNonNull(target, "target is null");
        this.backoff = requireNonNull(backoff, "backoff is null");
        this.cancellation = requireNonNull(cancellation, "cancellation is null");
    }

    void readAll()
            throws IOException
    {
        while (true) {
            try {
                failover.call(this::readRest, backoff, cancellation);
                return;
            }
            catch (ReadPausedException e) {
                takeRoom(e.pageSize(), Long.MAX_VALUE);
                target.giveBack(e.pageSize());
                backoff.progressed();
            }
        }
    }

    private Void readRest(URI daemon)
            throws IOException
    {
        try {
            client.read(daemon, handle.handle(), pages, this, cancellation);
            if (pages != handle.pages() || bytes != handle.bytes()) {
                throw new MalformedStreamException(
                        "%s ended a handle of %s pages and %s bytes after %s pages and %s bytes"
                        .formatted(daemon, handle.pages(), handle.bytes(), pages, bytes));
            }
            return null;
        }
        catch (MalformedStreamException e) {
            throw damaged(e);
        }
        catch (ProblemException e) {
            throw e.problem().is("data-corrupt") ? damaged(e) : e;
        }
    }

    private IOException damaged(IOException failure)
    {
        malformed++;
        return malformed < MAX_MALFORMED ? failure
                : new RetriesExhaustedException("Read damaged %s times".formatted(malformed), failure);
    }

    @Override
    public void block(int partition, int task, int attempt)
            throws IOException
    {
        if (partition != handle.partition()) {
            throw new MalformedStreamException(
                    "block of partition %s in the answer to a handle of partition %s"
                            .formatted(partition, handle.partition()));
        }
        wanted = target.isWanted(task, attempt);
    }

    @Override
    public void reserve(int size)
            throws IOException
    {
        if (pages >= handle.pages()) {
            throw new MalformedStreamException(
                    "more pages than the %s of the handle".formatted(handle.pages()));
        }
        takeRoom(size, MAX_STALL_NANOS);
    }

    private void takeRoom(int size, long nanos)
            throws IOException
    {
        Room room;
        try {
            room = target.awaitRoom(size, nanos);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new CancelledException();
        }
        switch (room) {
            case TAKEN -> {}
            case CLOSED -> throw new CancelledException();
            case NONE_YET -> throw new ReadPausedException(size);
        }
    }

    @Override
    public void page(byte[] page)
    {
        pages++;
        bytes += page.length;
        malformed = 0;
        backoff.progressed();
        if (wanted) {
            target.deliver(page);
        }
        else {
            target.giveBack(page.length);
        }
    }

    @Override
    public void release(int size)
    {
        target.giveBack(size);
    }
}
