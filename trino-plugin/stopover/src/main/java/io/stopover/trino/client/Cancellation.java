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

import com.google.errorprone.annotations.concurrent.GuardedBy;
import org.apache.hc.core5.concurrent.Cancellable;

import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Cancels the work of one sink, source or exchange: the request in flight, or the pause before the
 * next one. Cancellation is permanent: every further request fails with {@link CancelledException}.
 */
public final class Cancellation
{
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    @GuardedBy("lock")
    private boolean cancelled;
    @GuardedBy("lock")
    private Cancellable request;

    public boolean isCancelled()
    {
        lock.lock();
        try {
            return cancelled;
        }
        finally {
            lock.unlock();
        }
    }

    public void cancel()
    {
        Cancellable current;
        lock.lock();
        try {
            cancelled = true;
            current = request;
            changed.signalAll();
        }
        finally {
            lock.unlock();
        }
        if (current != null) {
            current.cancel();
        }
    }

    /** Makes the request in flight fail, if there is one; it may be repeated. */
    void abortRequest()
    {
        Cancellable current;
        lock.lock();
        try {
            current = request;
        }
        finally {
            lock.unlock();
        }
        if (current != null) {
            current.cancel();
        }
    }

    /** Returns false if cancelled before the time has passed. */
    public boolean pause(long nanos)
            throws InterruptedException
    {
        lock.lockInterruptibly();
        try {
            long remaining = nanos;
            while (!cancelled && remaining > 0) {
                remaining = changed.awaitNanos(remaining);
            }
            return !cancelled;
        }
        finally {
            lock.unlock();
        }
    }

    /** Pauses, and throws if cancelled or interrupted. */
    void pauseOrThrow(long nanos)
            throws CancelledException
    {
        try {
            if (!pause(nanos)) {
                throw new CancelledException();
            }
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new CancelledException();
        }
    }

    void attach(Cancellable newRequest)
            throws CancelledException
    {
        lock.lock();
        try {
            if (cancelled) {
                throw new CancelledException();
            }
            request = newRequest;
        }
        finally {
            lock.unlock();
        }
    }

    void detach()
    {
        lock.lock();
        try {
            request = null;
        }
        finally {
            lock.unlock();
        }
    }
}
