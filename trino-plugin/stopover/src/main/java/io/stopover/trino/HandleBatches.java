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
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;

import java.util.List;
import java.util.concurrent.CompletableFuture;

import static java.util.Objects.requireNonNull;

/**
 * Enumerates the handles of an exchange for one consumer, in batches of bounded size. A cancelled
 * {@code getNextBatch} does not skip a batch. References no handle after {@code close}.
 */
final class HandleBatches
        implements ExchangeSourceHandleSource
{
    /** A batch fits one request of the engine, and its recursion over batches stays shallow. */
    static final int BATCH_SIZE = 4096;

    @GuardedBy("this")
    private CompletableFuture<List<ExchangeSourceHandle>> handles;
    @GuardedBy("this")
    private int position;

    HandleBatches(CompletableFuture<List<ExchangeSourceHandle>> handles)
    {
        this.handles = requireNonNull(handles, "handles is null");
    }

    @Override
    public synchronized CompletableFuture<ExchangeSourceHandleBatch> getNextBatch()
    {
        return handles.thenApply(this::next);
    }

    private synchronized ExchangeSourceHandleBatch next(List<ExchangeSourceHandle> all)
    {
        int end = Math.min(position + BATCH_SIZE, all.size());
        // A copy, so that a batch does not retain the whole list.
        List<ExchangeSourceHandle> batch = List.copyOf(all.subList(position, end));
        position = end;
        return new ExchangeSourceHandleBatch(batch, end == all.size());
    }

    @Override
    public synchronized void close()
    {
        handles = CompletableFuture.failedFuture(new IllegalStateException("already closed"));
    }
}
