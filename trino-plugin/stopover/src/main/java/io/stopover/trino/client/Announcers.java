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

import com.google.errorprone.annotations.ThreadSafe;
import com.google.errorprone.annotations.concurrent.GuardedBy;
import io.stopover.trino.client.DaemonFailover.Operation;

import java.io.IOException;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * The daemons that may still announce an exchange: those that were asked to and answered, or may
 * yet read the request, like one that is frozen. Each of them has to hear of the close: otherwise
 * it could open the exchange again after another daemon has closed it.
 */
@ThreadSafe
public final class Announcers
{
    private static final long FIRST_PAUSE_NANOS = SECONDS.toNanos(1);
    private static final long LONGEST_PAUSE_NANOS = SECONDS.toNanos(30);

    private final DaemonFailover failover;
    @GuardedBy("this")
    private final Set<Daemon> asked = new LinkedHashSet<>();

    public Announcers(DaemonFailover failover)
    {
        this.failover = requireNonNull(failover, "failover is null");
    }

    /** An announcement that is remembered unless the daemon certainly does not execute it. */
    public <T> Operation<T> announcing(Operation<T> announcement)
    {
        return daemon -> {
            try {
                T result = announcement.ask(daemon);
                add(daemon);
                return result;
            }
            catch (IOException e) {
                FailureKind kind = FailureKind.of(e);
                if (kind == FailureKind.LOCAL || kind.isOutcomeUnknown()) {
                    add(daemon);
                }
                throw e;
            }
        };
    }

    /** A close that is not repeated at a daemon which has executed it, or never will. */
    public Operation<Void> closing(Operation<?> close)
    {
        return daemon -> {
            try {
                close.ask(daemon);
                remove(daemon);
                return null;
            }
            catch (IOException e) {
                switch (FailureKind.of(e)) {
                    case REFUSED, UNAUTHORIZED, REJECTED, FINAL -> remove(daemon);
                    case LOCAL, UNREACHABLE, TIMED_OUT, DISCONNECTED, CORRUPT, DRAINING,
                            UNAVAILABLE -> { /* it may have the announcement yet */ }
                }
                throw e;
            }
        };
    }

    /** The daemon at which to close first, unless it has failed since. */
    public Optional<Daemon> first()
    {
        return all().stream().filter(failover.daemons()::isInRotation).findFirst();
    }

    /** Closes at each of the others, and tries until they answer or the time is over. */
    public void closeAtOthers(Operation<?> close, long limitNanos, Cancellation cancellation)
            throws InterruptedException
    {
        Operation<Void> closing = closing(close);
        long start = System.nanoTime();
        long pause = FIRST_PAUSE_NANOS;
        while (!all().isEmpty() && System.nanoTime() - start < limitNanos) {
            for (Daemon daemon : all()) {
                if (failover.daemons().all().contains(daemon)) {
                    failover.tryOnce(daemon, closing);
                }
                else {
                    remove(daemon);
                }
            }
            long left = limitNanos - (System.nanoTime() - start);
            if (all().isEmpty() || !cancellation.pause(Math.min(pause, left))) {
                return;
            }
            pause = Math.min(2 * pause, LONGEST_PAUSE_NANOS);
        }
    }

    private synchronized List<Daemon> all()
    {
        return List.copyOf(asked);
    }

    private synchronized void add(Daemon daemon)
    {
        asked.add(daemon);
    }

    private synchronized void remove(Daemon daemon)
    {
        asked.remove(daemon);
    }
}
