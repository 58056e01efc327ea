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
import io.opentelemetry.api.trace.Span;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.Fleet;
import io.stopover.trino.client.SinkId;
import io.stopover.trino.client.SinkWriter;
import io.stopover.trino.wire.PageBatch;
import io.stopover.trino.wire.SinkPage;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.metrics.Metrics;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

import static com.google.common.base.Preconditions.checkArgument;
import static com.google.common.base.Preconditions.checkElementIndex;
import static com.google.common.base.Preconditions.checkState;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_PAGE_TOO_LARGE;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_SINK_LOST;
import static io.stopover.trino.wire.Counts.count;
import static java.util.Objects.requireNonNull;

/**
 * Collects the pages of one task attempt into batches. A sender, on a virtual thread that runs only
 * while there is something to send, sends them one at a time. Shared by all drivers of the task.
 *
 * <p>Memory does not depend on the number of partitions: pages of all partitions share one queue.
 * While the sink is blocked a sender runs, so it unblocks without further calls.
 *
 * <p>Callbacks of the engine run on the thread that completes a future: the sender's, or the one
 * that calls {@code abort}. No future is completed under the lock.
 */
final class StopoverSink
        implements ExchangeSink
{
    private static final Logger log = Logger.get(StopoverSink.class);
    /**
     * A slice is copied if the rest of its array is larger than this plus the slice, because
     * otherwise the whole array would be retained.
     */
    private static final int MAX_WASTED_BYTES = 4096;

    record Sizes(long batch, long maxBuffered, long maxPage)
    {
        static Sizes of(StopoverConfig config, Fleet fleet)
        {
            return new Sizes(
                    fleet.batchSize(),
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
    private final StopoverStats totals;
    private final TransferStats stats;
    private final Span span;
    private final CompletableFuture<Void> finished = new CompletableFuture<>();
    /** Completed once the sink holds no page and sends nothing more, whatever the outcome. */
    private final CompletableFuture<Void> terminated = new CompletableFuture<>();

    @GuardedBy("this")
    private State state = State.OPEN;
    @GuardedBy("this")
    private Throwable failure;
    @GuardedBy("this")
    private final ArrayDeque<SinkPage> queue = new ArrayDeque<>();
    /** Size of the queued pages as sent. */
    @GuardedBy("this")
    private long queuedFrameBytes;
    @GuardedBy("this")
    private long queuedMemory;
    /** Memory of the batch in flight. */
    @GuardedBy("this")
    private long sendingMemory;
    @GuardedBy("this")
    private boolean senderRunning;
    @GuardedBy("this")
    private long blockedSince;
    @GuardedBy("this")
    private CompletableFuture<Void> unblocked = new CompletableFuture<>();

    StopoverSink(
            SinkId id,
            int partitions,
            Sizes sizes,
            SinkWriter writer,
            Supplier<Backoff> abortBackoffs,
            Cancellation cancellation,
            Services services,
            Span span)
    {
        this.id = requireNonNull(id, "id is null");
        this.partitions = partitions;
        this.sizes = requireNonNull(sizes, "sizes is null");
        this.writer = requireNonNull(writer, "writer is null");
        this.abortBackoffs = requireNonNull(abortBackoffs, "abortBackoffs is null");
        this.cancellation = requireNonNull(cancellation, "cancellation is null");
        this.threads = services.threads();
        this.totals = services.stats();
        this.stats = new TransferStats(totals.getSinks());
        this.span = requireNonNull(span, "span is null");
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
        return blocked() ? unblocked.copy() : NOT_BLOCKED;
    }

    @GuardedBy("this")
    private boolean blocked()
    {
        return state == State.OPEN && queuedMemory + sendingMemory >= sizes.maxBuffered();
    }

    @Override
    public void add(int partition, Slice data)
    {
        checkElementIndex(partition, partitions, "partition");
        if (data.length() > sizes.maxPage()) {
            totals.failed(STOPOVER_PAGE_TOO_LARGE);
            throw tooLarge(data.length());
        }
        SinkPage page = SinkPage.of(partition, compact(data));
        synchronized (this) {
            if (state == State.ABORTED) {
                return;
            }
            if (state == State.FAILED) {
                throw failureException(failure);
            }
            checkState(state == State.OPEN, "page added to a finished sink");
            checkArgument(data.length() > 0, "page is empty");
            boolean wasBlocked = blocked();
            queue.add(page);
            queuedFrameBytes += page.frameSize();
            queuedMemory += page.retainedSize();
            if (!wasBlocked && blocked()) {
                blockedSince = System.nanoTime();
            }
            if (!batchIsDue() || senderRunning) {
                return;
            }
            senderRunning = true;
        }
        startSender();
    }

    private TrinoException tooLarge(int length)
    {
        return new TrinoException(STOPOVER_PAGE_TOO_LARGE, """
                Page of %s exceeds the limit of %s: raise stopover.max-page-size, and \
                limits.max_page_size of the daemons""".formatted(
                count(length, "byte"), sizes.maxPage()));
    }

    private static Slice compact(Slice data)
    {
        return data.getRetainedSize() > 2L * data.length() + MAX_WASTED_BYTES ? data.copy() : data;
    }

    @GuardedBy("this")
    private boolean batchIsDue()
    {
        return queuedFrameBytes >= sizes.batch() || blocked();
    }

    @Override
    public synchronized long getMemoryUsage()
    {
        return queuedMemory + sendingMemory;
    }

    @Override
    public Optional<Metrics> getMetrics()
    {
        return Optional.of(stats.toMetrics("StopoverSink"));
    }

    @Override
    public CompletableFuture<Void> finish()
    {
        boolean start = false;
        CompletableFuture<Void> wakeUp = null;
        synchronized (this) {
            if (state == State.OPEN) {
                wakeUp = unblock();
                state = State.FINISHING;
                start = !senderRunning;
                senderRunning = true;
            }
        }
        if (wakeUp != null) {
            wakeUp.complete(null);
        }
        if (start) {
            startSender();
        }
        return finished.copy();
    }

    /** Completes when the pages are released; the daemon is informed in the background. */
    @Override
    public CompletableFuture<Void> abort()
    {
        boolean senderWasRunning;
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (state != State.OPEN && state != State.FINISHING) {
                return terminated.copy();
            }
            wakeUp = close(State.ABORTED);
            senderWasRunning = senderRunning;
            senderRunning = true;
        }
        wakeUp.complete(null);
        finished.completeExceptionally(new TrinoException(STOPOVER_SINK_LOST, "Aborted: " + id));
        cancellation.cancel();
        if (!senderWasRunning) {
            terminate();
        }
        return terminated.copy();
    }

    private void startSender()
    {
        threads.start(
                Tracing.within(span, this::sendAll), this::senderFailed, finished, terminated);
    }

    /** Sends until no batch is due. */
    private void sendAll()
            throws IOException
    {
        while (true) {
            PageBatch batch;
            boolean small;
            synchronized (this) {
                batch = nextBatch();
                if (batch == null && state == State.OPEN) {
                    senderRunning = false;
                    return;
                }
                small = state == State.FINISHING && queue.isEmpty() && !writer.hasOwner();
            }
            if (small) {
                // its pages stay here until it is committed, as another daemon may need them
                writer.commit(Optional.ofNullable(batch));
                recordSent(batch);
                sent();
                finishSucceeded();
                break;
            }
            if (batch == null) {
                if (!isAborted()) {
                    writer.finish();
                    recordSent(null);
                    finishSucceeded();
                }
                break;
            }
            writer.send(batch);
            recordSent(batch);
            sent();
        }
        terminate();
    }

    private void recordSent(PageBatch batch)
    {
        recordRequests();
        if (batch != null) {
            stats.addPages(batch.pages().size(), batch.pageBytes());
        }
    }

    @GuardedBy("this")
    private PageBatch nextBatch()
    {
        boolean due = state == State.FINISHING || (state == State.OPEN && batchIsDue());
        if (!due || queue.isEmpty()) {
            return null;
        }
        List<SinkPage> pages = new ArrayList<>();
        long bytes = 0;
        while (!queue.isEmpty()
                && (pages.isEmpty() || bytes + queue.peek().frameSize() <= sizes.batch())) {
            SinkPage page = queue.poll();
            bytes += page.frameSize();
            queuedMemory -= page.retainedSize();
            sendingMemory += page.retainedSize();
            pages.add(page);
        }
        queuedFrameBytes -= bytes;
        return new PageBatch(pages);
    }

    private void sent()
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            boolean wasBlocked = blocked();
            sendingMemory = 0;
            if (!wasBlocked || blocked()) {
                return;
            }
            wakeUp = unblock();
            unblocked = new CompletableFuture<>();
        }
        wakeUp.complete(null);
    }

    private synchronized boolean isAborted()
    {
        return state == State.ABORTED;
    }

    private void finishSucceeded()
    {
        synchronized (this) {
            if (state == State.ABORTED) {
                return;
            }
            state = State.FINISHED;
        }
        finished.complete(null);
    }

    private void senderFailed(Throwable cause)
    {
        try {
            recordRequests();
            fail(cause);
        }
        finally {
            terminate();
        }
    }

    /** Wakes the drivers before it allocates anything: the failure may be a lack of memory. */
    private void fail(Throwable cause)
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (state == State.ABORTED) {
                return;
            }
            failure = cause;
            wakeUp = close(State.FAILED);
            sendingMemory = 0;
        }
        wakeUp.complete(null);
        totals.failed(Failures.code(cause));
        Tracing.fail(span, cause);
        finished.completeExceptionally(failureException(cause));
    }

    private TrinoException failureException(Throwable cause)
    {
        return Failures.toTrino("Cannot write " + id, cause);
    }

    private void recordRequests()
    {
        stats.addRequests(writer.requests() - stats.getRequests(),
                writer.retries() - stats.getRetries());
        stats.addBytesElsewhere(writer.homeBytes() - stats.getHomeBytes(),
                writer.otherZoneBytes() - stats.getOtherZoneBytes());
    }

    /**
     * Releases the queued pages. Returns the future of blocked drivers, which the caller completes
     * without the lock.
     */
    @GuardedBy("this")
    private CompletableFuture<Void> close(State newState)
    {
        CompletableFuture<Void> wakeUp = unblock();
        state = newState;
        queue.clear();
        queuedFrameBytes = 0;
        queuedMemory = 0;
        return wakeUp;
    }

    @GuardedBy("this")
    private CompletableFuture<Void> unblock()
    {
        if (blockedSince != 0) {
            stats.addBlocked(System.nanoTime() - blockedSince);
            blockedSince = 0;
        }
        return unblocked;
    }

    /** Runs once, last: the sender has ended, or never runs again. */
    private void terminate()
    {
        boolean committed;
        synchronized (this) {
            sendingMemory = 0;
            committed = state == State.FINISHED;
        }
        terminated.complete(null);
        span.end();
        if (!committed) {
            threads.start(this::abortAttempt, e ->
                    log.debug(e, "Cannot abort %s; it is removed with its exchange", id));
        }
    }

    private void abortAttempt()
            throws IOException
    {
        writer.abort(abortBackoffs.get(), new Cancellation());
    }
}
