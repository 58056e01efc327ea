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
import com.google.inject.Inject;
import io.airlift.log.Logger;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.LongSupplier;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.MINUTES;

/**
 * Logs failures of daemons and their return: for each daemon and kind of failure one warning at
 * once, then at most one per minute with the number of those that were suppressed.
 */
public final class FailureLog
{
    private static final Logger log = Logger.get(FailureLog.class);
    private static final long INTERVAL_NANOS = MINUTES.toNanos(1);
    /** Problem types come from the network. */
    private static final int MAX_ENTRIES = 1000;

    private record Key(Daemon daemon, String kind) {}

    private record Entry(long loggedAt, int suppressed) {}

    private final LongSupplier nanoTime;
    @GuardedBy("this")
    private final Map<Key, Entry> entries = new HashMap<>();

    @Inject
    public FailureLog()
    {
        this(System::nanoTime);
    }

    FailureLog(LongSupplier nanoTime)
    {
        this.nanoTime = requireNonNull(nanoTime, "nanoTime is null");
    }

    /** @param leftRotation whether requests go to other daemons because of this failure */
    void failed(Daemon daemon, IOException failure, boolean leftRotation)
    {
        FailureKind kind = FailureKind.of(failure);
        // FINAL: the exchange or sink ended, as at the end of every query
        if (kind == FailureKind.LOCAL || kind == FailureKind.FINAL) {
            return;
        }
        String action = leftRotation ? "Avoiding daemon %s for a while".formatted(daemon)
                : "Request to daemon %s failed".formatted(daemon);
        warn(daemon, kind(failure), action + ": " + failure.getMessage());
    }

    private static String kind(IOException failure)
    {
        return failure instanceof ProblemException problem
                ? problem.problem().slug()
                : FailureKind.of(failure).name();
    }

    void returned(Daemon daemon)
    {
        admit(new Key(daemon, "returned")).ifPresent(suppressed ->
                log.info("Daemon %s is back in rotation%s", daemon, suppressed));
    }

    private void warn(Daemon daemon, String kind, String message)
    {
        admit(new Key(daemon, kind)).ifPresent(suppressed -> log.warn("%s%s", message, suppressed));
    }

    /** Empty if the message is suppressed; otherwise a note about those suppressed before. */
    private synchronized Optional<String> admit(Key key)
    {
        long now = nanoTime.getAsLong();
        Entry entry = entries.get(key);
        if (entry != null && now - entry.loggedAt() < INTERVAL_NANOS) {
            entries.put(key, new Entry(entry.loggedAt(), entry.suppressed() + 1));
            return Optional.empty();
        }
        if (entries.size() >= MAX_ENTRIES) {
            entries.clear();
        }
        entries.put(key, new Entry(now, 0));
        return Optional.of(entry == null || entry.suppressed() == 0
                ? ""
                : " (%s similar messages were suppressed)".formatted(entry.suppressed()));
    }
}
