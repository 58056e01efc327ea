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
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import io.trino.spi.exchange.ExchangeSourceOutputSelector.Selection;

import java.util.ArrayDeque;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.NANOSECONDS;

/**
 * Pages of the handles that the engine adds, read ahead by virtual threads into a buffer of bounded
 * size. Shared by all drivers of a pipeline.
 *
 * <p>Nothing is read before the final selector is there, so every page is known to be wanted or not
 * when it comes. Handles of an ordered exchange are read one after another in the order in which
 * they were added; others several at a time.
 */
final class StopoverSource
        implements ExchangeSource
{
    private final int readConcurrency;
    private final long bufferSize;
    private final DaemonClient client;
    private final DaemonFailover failover;
    private final Supplier<Backoff> backoffs;
    private final VirtualThreads threads;

    @GuardedBy("this")
    private ExchangeSourceOutputSelector selector;
    @GuardedBy("this")
    private final ArrayDeque<StopoverSourceHandle> waiting = new ArrayDeque<>();
    @GuardedBy("this")
    private final ArrayDeque<Slice> pages = new ArrayDeque<>();
    /** Of the pages in the buffer and of those that are just being received. */
    @GuardedBy("this")
    private long bufferedBytes;
    @GuardedBy("this")
    private final Set<Cancellation> readers = new HashSet<>();
    @GuardedBy("this")
    private boolean readsOrdered;
    @GuardedBy("this")
    private boolean noMoreHandles;
    @GuardedBy("this")
    private boolean closed;
    /**
     * A reader was told that there is nothing more. Only then is this source finished: the engine
     * books the memory in use after each read, and a driver that finished before another one has
     * booked its last page would close the books too early.
     */
    @GuardedBy("this")
    private boolean endWasRead;
    @GuardedBy("this")
    private TrinoException failure;
    @GuardedBy("this")
    private CompletableFuture<Void> unblocked = new CompletableFuture<>();

    StopoverSource(
            StopoverConfig config,
            DaemonClient client,
            DaemonFailover failover,
            Supplier<Backoff> backoffs,
            VirtualThreads threads)
    {
        this.readConcurrency = config.getReadConcurrency();
        this.bufferSize = config.getReadBufferSize().toBytes();
        this.client = requireNonNull(client, "client is null");
        this.failover = requireNonNull(failover, "failover is null");
        this.backoffs = requireNonNull(backoffs, "backoffs is null");
        this.threads = requireNonNull(threads, "threads is null");
    }

    @Override
    public void addSourceHandles(List<ExchangeSourceHandle> handles)
    {
        wakeAfter(() -> {
            if (!closed && !noMoreHandles) {
                for (ExchangeSourceHandle handle : handles) {
                    StopoverSourceHandle added = (StopoverSourceHandle) handle;
                    readsOrdered |= added.ordered();
                    waiting.add(added);
                }
                startReaders();
            }
        });
    }

    @Override
    public void noMoreSourceHandles()
    {
        wakeAfter(() -> noMoreHandles = true);
    }

    @Override
    public void setOutputSelector(ExchangeSourceOutputSelector newSelector)
    {
        wakeAfter(() -> {
            if (selector != null) {
                if (newSelector.getVersion() <= selector.getVersion()) {
                    return;
                }
                selector.checkValidTransition(newSelector);
            }
            selector = newSelector;
            startReaders();
        });
    }

    @Override
    public synchronized CompletableFuture<Void> isBlocked()
    {
        return hasNews() ? NOT_BLOCKED : unblocked.copy();
    }

    @GuardedBy("this")
    private boolean hasNews()
    {
        return closed || failure != null || !pages.isEmpty() || isExhausted();
    }

    @GuardedBy("this")
    private boolean isExhausted()
    {
        return noMoreHandles && hasFinalSelector() && waiting.isEmpty() && readers.isEmpty()
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
        return closed || endWasRead;
    }

    @Override
    public Slice read()
    {
        CompletableFuture<Void> wakeUp = null;
        Slice page;
        synchronized (this) {
            if (closed) {
                return null;
            }
            if (failure != null) {
                throw failure;
            }
            page = pages.poll();
            if (page == null) {
                endWasRead |= isExhausted();
                return null;
            }
            bufferedBytes -= page.length();
            notifyAll();
            startReaders();
            if (isExhausted()) {
                wakeUp = replaceUnblocked();
            }
        }
        if (wakeUp != null) {
            wakeUp.complete(null);
        }
        return page;
    }

    @Override
    public synchronized long getMemoryUsage()
    {
        return bufferedBytes;
    }

    @Override
    public void close()
    {
        wakeAfter(() -> {
            closed = true;
            drop();
        });
    }

    private void fail(TrinoException exception)
    {
        wakeAfter(() -> {
            if (!closed && failure == null) {
                failure = exception;
                drop();
            }
        });
    }

    /**
     * No reader goes on, nothing is kept. Connections are closed by another thread: while the engine
     * waits for {@code close}, other drivers can fail at memory that is no longer booked.
     */
    @GuardedBy("this")
    private void drop()
    {
        waiting.clear();
        pages.clear();
        bufferedBytes = 0;
        notifyAll();
        if (!readers.isEmpty()) {
            List<Cancellation> running = List.copyOf(readers);
            threads.start(() -> running.forEach(Cancellation::cancel));
        }
    }

    @GuardedBy("this")
    private void startReaders()
    {
        if (closed || failure != null || !hasFinalSelector()) {
            return;
        }
        int concurrency = readsOrdered ? 1 : readConcurrency;
        while (!waiting.isEmpty() && readers.size() < concurrency
                && (readers.isEmpty() || bufferedBytes < bufferSize)) {
            StopoverSourceHandle handle = waiting.poll();
            Cancellation cancellation = new Cancellation();
            readers.add(cancellation);
            threads.start(() -> read(handle, cancellation));
        }
    }

    private void read(StopoverSourceHandle handle, Cancellation cancellation)
    {
        try {
            Buffer buffer = new Buffer(handle);
            new HandleReader(client, failover, handle, buffer, backoffs.get(), cancellation)
                    .readAll();
        }
        catch (Throwable t) {
            fail(Failures.toTrino("Cannot read partition %s of exchange %s"
                    .formatted(handle.partition(), handle.exchangeId()), t));
        }
        finally {
            wakeAfter(() -> {
                readers.remove(cancellation);
                startReaders();
            });
        }
    }

    /** Changes the state, then wakes those who wait if there is news for them. */
    private void wakeAfter(Runnable change)
    {
        CompletableFuture<Void> wakeUp = null;
        synchronized (this) {
            change.run();
            if (hasNews()) {
                wakeUp = replaceUnblocked();
            }
        }
        if (wakeUp != null) {
            wakeUp.complete(null);
        }
    }

    @GuardedBy("this")
    private CompletableFuture<Void> replaceUnblocked()
    {
        CompletableFuture<Void> previous = unblocked;
        unblocked = new CompletableFuture<>();
        return previous;
    }

    /** What a reader of one handle may do to this source. */
    private final class Buffer
            implements HandleReader.Target
    {
        private final StopoverSourceHandle handle;

        private Buffer(StopoverSourceHandle handle)
        {
            this.handle = handle;
        }

        @Override
        public boolean isWanted(int task, int attempt)
        {
            synchronized (StopoverSource.this) {
                Selection selection = selector.getSelection(handle.exchangeId(), task, attempt);
                return selection == Selection.INCLUDED;
            }
        }

        @Override
        public HandleReader.Room awaitRoom(int bytes, long nanos)
                throws InterruptedException
        {
            long start = System.nanoTime();
            synchronized (StopoverSource.this) {
                // a page larger than the buffer goes in when the buffer is empty
                while (isOpen() && bufferedBytes > 0 && bufferedBytes + bytes > bufferSize) {
                    long remaining = nanos - (System.nanoTime() - start);
                    if (remaining <= 0) {
                        return HandleReader.Room.NONE_YET;
                    }
                    NANOSECONDS.timedWait(StopoverSource.this, remaining);
                }
                if (!isOpen()) {
                    return HandleReader.Room.CLOSED;
                }
                bufferedBytes += bytes;
                return HandleReader.Room.TAKEN;
            }
        }

        @Override
        public void giveBack(int bytes)
        {
            synchronized (StopoverSource.this) {
                if (isOpen()) {
                    bufferedBytes -= bytes;
                    StopoverSource.this.notifyAll();
                }
            }
        }

        @Override
        public void deliver(byte[] page)
        {
            wakeAfter(() -> {
                if (isOpen()) {
                    pages.add(Slices.wrappedBuffer(page));
                }
            });
        }

        private boolean isOpen()
        {
            return !closed && failure == null;
        }
    }
}
