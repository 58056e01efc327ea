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
import io.airlift.slice.Slice;
import io.airlift.slice.Slices;
import io.opentelemetry.api.trace.Span;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import io.trino.spi.exchange.ExchangeSourceOutputSelector.Selection;
import io.trino.spi.metrics.Metrics;

import java.util.ArrayDeque;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

import static com.google.common.base.Preconditions.checkState;
import static io.airlift.slice.SizeOf.instanceSize;
import static io.airlift.slice.SizeOf.sizeOfByteArray;
import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.NANOSECONDS;

/**
 * Reads the pages of the handles that the engine adds into a buffer of bounded size. Readers run on
 * virtual threads, one for each handle being read. Shared by all drivers of a pipeline.
 *
 * <p>Reading starts once the final selector is known. The handles of an ordered exchange are read
 * one at a time, in the order in which they were added; others concurrently.
 *
 * <p>Callbacks of the engine run on the thread that completes a future: a reader's, or the one that
 * calls this source. No future is completed under the lock.
 */
final class StopoverSource
        implements ExchangeSource
{
    private static final int SLICE_SIZE = instanceSize(Slice.class);

    private final int readConcurrency;
    private final long bufferSize;
    private final Services services;
    private final Supplier<Backoff> backoffs;
    private final TransferStats stats;

    @GuardedBy("this")
    private ExchangeSourceOutputSelector selector;
    @GuardedBy("this")
    private final ArrayDeque<StopoverSourceHandle> unreadHandles = new ArrayDeque<>();
    @GuardedBy("this")
    private final ArrayDeque<Slice> pages = new ArrayDeque<>();
    /** Memory of buffered pages, and of those being received. */
    @GuardedBy("this")
    private long bufferedMemory;
    @GuardedBy("this")
    private final Set<Cancellation> readers = new HashSet<>();
    @GuardedBy("this")
    private boolean ordered;
    @GuardedBy("this")
    private boolean noMoreHandles;
    @GuardedBy("this")
    private boolean closed;
    /**
     * A {@code read} returned null after the last page. Only then is this source finished: the
     * engine records the memory usage after each read, so a driver that finishes while another one
     * has yet to do that would end the pipeline with memory still reserved.
     */
    @GuardedBy("this")
    private boolean endObserved;
    @GuardedBy("this")
    private Throwable failure;
    @GuardedBy("this")
    private StopoverSourceHandle failedHandle;
    @GuardedBy("this")
    private long blockedSince;
    @GuardedBy("this")
    private CompletableFuture<Void> unblocked = new CompletableFuture<>();

    StopoverSource(StopoverConfig config, Supplier<Backoff> backoffs, Services services)
    {
        this.readConcurrency = config.getReadConcurrency();
        this.bufferSize = config.getReadBufferSize().toBytes();
        this.backoffs = requireNonNull(backoffs, "backoffs is null");
        this.services = requireNonNull(services, "services is null");
        this.stats = new TransferStats(services.stats().getSources());
    }

    @Override
    public void addSourceHandles(List<ExchangeSourceHandle> handles)
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (closed || handles.isEmpty()) {
                return;
            }
            checkState(!noMoreHandles, "source handles added after noMoreSourceHandles");
            for (ExchangeSourceHandle handle : handles) {
                StopoverSourceHandle added = (StopoverSourceHandle) handle;
                ordered |= added.ordered();
                unreadHandles.add(added);
            }
            startReaders();
            wakeUp = wakeUp();
        }
        wakeUp.complete(null);
    }

    @Override
    public void noMoreSourceHandles()
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            noMoreHandles = true;
            wakeUp = wakeUp();
        }
        wakeUp.complete(null);
    }

    @Override
    public void setOutputSelector(ExchangeSourceOutputSelector newSelector)
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (selector != null) {
                if (newSelector.getVersion() <= selector.getVersion()) {
                    return;
                }
                selector.checkValidTransition(newSelector);
            }
            selector = newSelector;
            startReaders();
            wakeUp = wakeUp();
        }
        wakeUp.complete(null);
    }

    @Override
    public synchronized CompletableFuture<Void> isBlocked()
    {
        if (isReady()) {
            return NOT_BLOCKED;
        }
        if (blockedSince == 0) {
            blockedSince = System.nanoTime();
        }
        return unblocked.copy();
    }

    @GuardedBy("this")
    private boolean isReady()
    {
        return !isOpen() || !pages.isEmpty() || isExhausted();
    }

    @GuardedBy("this")
    private boolean isOpen()
    {
        return !closed && failure == null;
    }

    @GuardedBy("this")
    private boolean isExhausted()
    {
        return noMoreHandles && hasFinalSelector() && unreadHandles.isEmpty() && readers.isEmpty()
                && pages.isEmpty();
    }

    @GuardedBy("this")
    private boolean hasFinalSelector()
    {
        return selector != null && selector.isFinal();
    }

    @Override
    public synchronized boolean isFinished()
    {
        return closed || endObserved;
    }

    @Override
    public Slice read()
    {
        CompletableFuture<Void> wakeUp;
        Slice page;
        synchronized (this) {
            if (closed) {
                return null;
            }
            if (failure != null) {
                throw failureException();
            }
            page = pages.poll();
            if (page == null) {
                endObserved |= isExhausted();
                return null;
            }
            bufferedMemory -= memory(page.length());
            notifyAll();
            startReaders();
            wakeUp = wakeUp();
        }
        wakeUp.complete(null);
        return page;
    }

    @GuardedBy("this")
    private TrinoException failureException()
    {
        return Failures.toTrino("Cannot read partition %s of exchange %s"
                .formatted(failedHandle.partition(), failedHandle.exchangeId()), failure);
    }

    @Override
    public synchronized long getMemoryUsage()
    {
        return bufferedMemory;
    }

    /** Memory of a page of {@code length} bytes. */
    private static long memory(int length)
    {
        return SLICE_SIZE + sizeOfByteArray(length);
    }

    @Override
    public Optional<Metrics> getMetrics()
    {
        return Optional.of(stats.toMetrics("StopoverSource"));
    }

    @Override
    public void close()
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            closed = true;
            release();
            wakeUp = wakeUp();
        }
        wakeUp.complete(null);
    }

    /** Wakes the drivers before it allocates anything: the failure may be a lack of memory. */
    private void fail(StopoverSourceHandle handle, Throwable cause)
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            if (!isOpen()) {
                return;
            }
            failure = cause;
            failedHandle = handle;
            wakeUp = wakeUp();
        }
        wakeUp.complete(null);
        synchronized (this) {
            release();
        }
        services.stats().failed(Failures.code(cause));
    }

    /**
     * Releases the pages and cancels the readers. Another thread closes their connections: while
     * {@code close} waited for that, other drivers could fail on memory no longer reserved.
     */
    @GuardedBy("this")
    private void release()
    {
        unreadHandles.clear();
        pages.clear();
        bufferedMemory = 0;
        notifyAll();
        if (!readers.isEmpty()) {
            List<Cancellation> running = List.copyOf(readers);
            services.threads().start(
                    () -> running.forEach(Cancellation::cancel),
                    _ -> running.forEach(Cancellation::cancel));
        }
    }

    @GuardedBy("this")
    private void startReaders()
    {
        if (!isOpen() || !hasFinalSelector()) {
            return;
        }
        int concurrency = ordered ? 1 : readConcurrency;
        while (!unreadHandles.isEmpty() && readers.size() < concurrency
                && (readers.isEmpty() || bufferedMemory < bufferSize)) {
            StopoverSourceHandle handle = unreadHandles.poll();
            Cancellation cancellation = new Cancellation();
            readers.add(cancellation);
            services.threads().start(
                    () -> readHandle(handle, cancellation),
                    t -> {
                        fail(handle, t);
                        readerEnded(cancellation);
                    });
        }
    }

    private void readHandle(StopoverSourceHandle handle, Cancellation cancellation)
            throws Exception
    {
        Span span = services.tracing().start("stopover.read", handle.traceparent());
        HandleReader reader = new HandleReader(
                services,
                services.homes().find(handle.holder().stream().toList()),
                handle,
                new Buffer(handle),
                backoffs.get(),
                cancellation);
        try {
            Tracing.within(span, reader::readAll).run();
        }
        catch (Throwable t) {
            if (!cancellation.isCancelled()) {
                Tracing.fail(span, t);
            }
            throw t;
        }
        finally {
            stats.addRequests(reader.requests(), reader.retries());
            stats.addBytesElsewhere(reader.homeBytes(), reader.otherZoneBytes());
            span.end();
        }
        readerEnded(cancellation);
    }

    private void readerEnded(Cancellation cancellation)
    {
        CompletableFuture<Void> wakeUp;
        synchronized (this) {
            readers.remove(cancellation);
            startReaders();
            wakeUp = wakeUp();
        }
        wakeUp.complete(null);
    }

    /**
     * Returns the future of blocked drivers if they can proceed, otherwise a completed one. The
     * caller completes it without the lock.
     */
    @GuardedBy("this")
    private CompletableFuture<Void> wakeUp()
    {
        if (!isReady()) {
            return NOT_BLOCKED;
        }
        if (blockedSince != 0) {
            stats.addBlocked(System.nanoTime() - blockedSince);
            blockedSince = 0;
        }
        CompletableFuture<Void> previous = unblocked;
        if (isOpen()) {
            unblocked = new CompletableFuture<>();
        }
        return previous;
    }

    /** The buffer, from the point of view of the reader of one handle. */
    private final class Buffer
            implements HandleReader.Target
    {
        private final StopoverSourceHandle handle;

        private Buffer(StopoverSourceHandle handle)
        {
            this.handle = handle;
        }

        @Override
        public void checkSelected(int task, int attempt)
        {
            synchronized (StopoverSource.this) {
                Selection selection = selector.getSelection(handle.exchangeId(), task, attempt);
                checkState(selection == Selection.INCLUDED,
                        "attempt %s of task %s was planned, but the output selector has it as %s",
                        attempt, task, selection);
            }
        }

        @Override
        public HandleReader.Reservation reserve(int bytes, long nanos)
                throws InterruptedException
        {
            long start = System.nanoTime();
            long needed = memory(bytes);
            synchronized (StopoverSource.this) {
                // A page larger than the whole buffer is admitted when the buffer is empty.
                while (isOpen() && bufferedMemory > 0 && bufferedMemory + needed > bufferSize) {
                    long remaining = nanos - (System.nanoTime() - start);
                    if (remaining <= 0) {
                        return HandleReader.Reservation.TIMED_OUT;
                    }
                    NANOSECONDS.timedWait(StopoverSource.this, remaining);
                }
                if (!isOpen()) {
                    return HandleReader.Reservation.CLOSED;
                }
                bufferedMemory += needed;
                return HandleReader.Reservation.GRANTED;
            }
        }

        @Override
        public void release(int bytes)
        {
            synchronized (StopoverSource.this) {
                if (isOpen()) {
                    bufferedMemory -= memory(bytes);
                    StopoverSource.this.notifyAll();
                }
            }
        }

        @Override
        public void deliver(byte[] page)
        {
            stats.addPages(1, page.length);
            CompletableFuture<Void> wakeUp;
            synchronized (StopoverSource.this) {
                if (!isOpen()) {
                    return;
                }
                pages.add(Slices.wrappedBuffer(page));
                wakeUp = wakeUp();
            }
            wakeUp.complete(null);
        }
    }
}
