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

import com.google.errorprone.annotations.concurrent.GuardedBy;
import io.airlift.log.Logger;
import io.airlift.slice.Slice;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.SinkId;
import io.stopover.trino.client.SinkWriter;
import io.stopover.trino.wire.PageBatch;
import io.stopover.trino.wire.SinkPage;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

import static com.google.common.base.Preconditions.checkArgument;
import static com.google.common.base.Preconditions.checkElementIndex;
import static com.google.common.base.Preconditions.checkState;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_PAGE_TOO_LARGE;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_SINK_LOST;
import static java.util.Objects.requireNonNull;

/**
 * Collects the pages of one task attempt into batches and has them sent, one batch at a time, by a
 * virtual thread that lives only while there is something to send. Shared by all drivers of the
 * task.
 *
 * <p>Bytes held do not depend on the number of partitions: pages of all of them wait in one queue.
 * The sender always runs while the sink asks the engine to wait, so the wait ends by itself.
 */
final class StopoverSink
        implements ExchangeSink
{
    private static final Logger log = Logger.get(StopoverSink.class);
    /**
     * A page whose array is much larger than the page is copied, so that what is counted is what is
     * held.
     */
    private static final int MAX_WASTED_BYTES = 4096;

    record Sizes(long batch, long maxBuffered, long maxPage)
    {
        static Sizes of(StopoverConfig config)
        {
            return new Sizes(
                    config.getBatchSize().toBytes(),
                    config.getSinkMaxBuffered().toBytes(),
                    config.getMaxPageSize().toBytes());
        }
    }

    private enum State
    {
        OPEN, FINISHING, FINISHED, FAILED, ABORTED
    }

    private final SinkId id;
    private final int partitions;
    private final Sizes sizes;
    private final SinkWriter writer;
    private final Supplier<Backoff> abortBackoffs;
    private final Cancellation cancellation;
    private final VirtualThreads threads;
    private final CompletableFuture<Void> finished = new CompletableFuture<>();
    /** Done when nothing more will be sent, be it after finish, failure or abort. */
    private final CompletableFuture<Void> ended = new CompletableFuture<>();

    @GuardedBy("this")
    private State state = State.OPEN;
    @GuardedBy("this")
    private TrinoException failure;
    @GuardedBy("this")
    private final ArrayDeque<SinkPage> waiting = new ArrayDeque<>();
    @GuardedBy("this")
    private long waitingBytes;
    /** Of the pages that wait, and of the batch that is under way. */
    @GuardedBy("this")
    private long retainedBytes;
    @GuardedBy("this")
    private boolean senderRuns;
    @GuardedBy("this")
    private CompletableFuture<Void> unblocked = new CompletableFuture<>();

    StopoverSink(
            SinkId id,
            int partitions,
            Sizes sizes,
            SinkWriter writer,
            Supplier<Backoff> abortBackoffs,
            Cancellation cancellation,
            VirtualThreads threads)
    {
        this.id = requireNonNull(id, "id is null");
        this.partitions = partitions;
        this.sizes = requireNonNull(sizes, "sizes is null");
        this.writer = requireNonNull(writer, "writer is null");
        this.abortBackoffs = requireNonNull(abortBackoffs, "abortBackoffs is null");
        this.cancellation = requireNonNull(cancellation, "cancellation is null");
        this.threads = requireNonNull(threads, "threads is null");
    }

    @Override
    public boolean isHandleUpdateRequired()
    {
        return false;
    }

    @Override
    public void updateHandle(ExchangeSinkInstanceHandle handle) {}

    @Override
    public synchronized CompletableFuture<Void> isBlocked()
    {
        return mustWait() ? unblocked.copy() : NOT_BLOCKED;
    }

    @GuardedBy("this")
    private boolean mustWait()
    {
        return state == State.OPEN && retainedBytes >= sizes.maxBuffered();
    }

    @Override
    public void add(int partition, Slice data)
    {
        checkElementIndex(partition, partitions, "partition");
        if (data.length() > sizes.maxPage()) {
            throw tooLarge(data.length());
        }
        SinkPage page = SinkPage.of(partition, compact(data));
        synchronized (this) {
            if (state == State.ABORTED) {
                return;
            }
            if (failure != null) {
                throw failure;
            }
            checkState(state == State.OPEN, "a page was added to a finished sink");
            checkArgument(data.length() > 0, "a page is empty");
            waiting.add(page);
            waitingBytes += page.frameSize();
            retainedBytes += page.retainedSize();
            if (!batchIsDue() || senderRuns) {
                return;
            }
            senderRuns = true;
        }
        threads.start(this::sendAll);
    }

    private TrinoException tooLarge(int length)
    {
        return new TrinoException(STOPOVER_PAGE_TOO_LARGE, """
                A row makes a page of %s bytes, more than %s: raise stopover.max-page-size, \
                and limits.max_page_size of the daemons""".formatted(length, sizes.maxPage()));
    }

    private static Slice compact(Slice data)
    {
        return data.getRetainedSize() > 2L * data.length() + MAX_WASTED_BYTES ? data.copy() : data;
    }

    @GuardedBy("this")
    private boolean batchIsDue()
    {
        return waitingBytes >= sizes.batch() || retainedBytes >= sizes.maxBuffered();
    }

    @Override
    public synchronized long getMemoryUsage()
    {
        return retainedBytes;
    }

    @Override
    public CompletableFuture<Void> finish()
    {
        boolean start = false;
        synchronized (this) {
            if (state == State.OPEN) {
                state = State.FINISHING;
                start = !senderRuns;
                senderRuns = true;
            }
        }
        if (start) {
            threads.start(this::sendAll);
        }
        return finished.copy();
    }

    @Override
    public CompletableFuture<Void> abort()
    {
        boolean start;
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (state != State.OPEN && state != State.FINISHING) {
                return ended.copy();
            }
            wakeUp = end(State.ABORTED);
            start = !senderRuns;
            senderRuns = true;
        }
        cancellation.cancel();
        wakeUp.complete(null);
        finished.completeExceptionally(new TrinoException(STOPOVER_SINK_LOST, "Aborted: " + id));
        if (start) {
            threads.start(this::forget);
        }
        return ended.copy();
    }

    /** The sender: runs until nothing is due. */
    private void sendAll()
    {
        try {
            while (true) {
                PageBatch batch;
                synchronized (this) {
                    batch = nextBatch();
                    if (batch == null && state == State.OPEN) {
                        senderRuns = false;
                        return;
                    }
                }
                if (batch == null) {
                    break;
                }
                writer.send(batch);
                release(batch.retainedBytes());
            }
            if (!isAborted()) {
                writer.finish();
                finishSucceeded();
            }
        }
        catch (IOException | RuntimeException e) {
            fail(e);
        }
        forget();
    }

    @GuardedBy("this")
    private PageBatch nextBatch()
    {
        boolean due = state == State.FINISHING || (state == State.OPEN && batchIsDue());
        if (!due || waiting.isEmpty()) {
            return null;
        }
        List<SinkPage> pages = new ArrayList<>();
        long bytes = 0;
        while (!waiting.isEmpty()
                && (pages.isEmpty() || bytes + waiting.peek().frameSize() <= sizes.batch())) {
            SinkPage page = waiting.poll();
            bytes += page.frameSize();
            pages.add(page);
        }
        waitingBytes -= bytes;
        return new PageBatch(pages);
    }

    private void release(long bytes)
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (state != State.OPEN && state != State.FINISHING) {
                return;
            }
            retainedBytes -= bytes;
            if (retainedBytes >= sizes.maxBuffered()) {
                return;
            }
            wakeUp = replaceUnblocked();
        }
        wakeUp.complete(null);
    }

    private synchronized boolean isAborted()
    {
        return state == State.ABORTED;
    }

    private void finishSucceeded()
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (state == State.ABORTED) {
                return;
            }
            wakeUp = end(State.FINISHED);
        }
        wakeUp.complete(null);
        finished.complete(null);
    }

    private void fail(Throwable cause)
    {
        CompletableFuture<Void> wakeUp;
        TrinoException exception;
        synchronized (this) {
            if (state == State.ABORTED) {
                return;
            }
            exception = Failures.toTrino("Cannot write " + id, cause);
            failure = exception;
            wakeUp = end(State.FAILED);
        }
        wakeUp.complete(null);
        finished.completeExceptionally(exception);
    }

    /**
     * Nothing more will be sent: lets the pages go. Returns the future of those who wait, to be
     * completed without the lock.
     */
    @GuardedBy("this")
    private CompletableFuture<Void> end(State newState)
    {
        state = newState;
        waiting.clear();
        waitingBytes = 0;
        retainedBytes = 0;
        return replaceUnblocked();
    }

    @GuardedBy("this")
    private CompletableFuture<Void> replaceUnblocked()
    {
        CompletableFuture<Void> previous = unblocked;
        unblocked = new CompletableFuture<>();
        return previous;
    }

    /** Last of all: an attempt that was not finished is given up at the daemons too. */
    private void forget()
    {
        boolean giveUp;
        synchronized (this) {
            giveUp = state == State.FAILED || state == State.ABORTED;
        }
        try {
            if (giveUp) {
                writer.abort(abortBackoffs.get(), new Cancellation());
            }
        }
        catch (IOException | RuntimeException e) {
            log.debug(e, "Cannot give up %s; it is collected with its exchange", id);
        }
        finally {
            ended.complete(null);
        }
    }
}
