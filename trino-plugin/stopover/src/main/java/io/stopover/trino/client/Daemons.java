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
import io.stopover.trino.StopoverConfig;
import org.weakref.jmx.Managed;

import java.net.URI;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.LongSupplier;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

/**
 * The configured daemons in order of preference, and which of them are in rotation: one circuit
 * breaker per daemon, shared by all operations.
 *
 * <p>A failure removes a daemon from rotation for a cooldown that doubles with each consecutive
 * failure. After the cooldown it needs a successful probe to return (half open). A request outside
 * rotation is a last resort. Its own cooldown restarts only by a failed probe, so that many
 * requests that fail at once count as one failure.
 */
public final class Daemons
{
    private enum Status
    {
        IN_ROTATION, COOLING, PROBING
    }

    private static final class State
    {
        private Status status = Status.IN_ROTATION;
        /** Requests that started before this time say nothing about the current status. */
        private long since = Long.MIN_VALUE;
        private long cooldownEnd;
        /** Consecutive failures, which no success has interrupted. */
        private int failures;
    }

    private final List<URI> uris;
    private final long cooldown;
    private final long maxCooldown;
    private final LongSupplier nanoTime;
    private final long epoch;
    @GuardedBy("this")
    private final Map<URI, State> states = new LinkedHashMap<>();

    @Inject
    public Daemons(StopoverConfig config)
    {
        this(
                config.getUris(),
                config.getDaemonCooldown().roundTo(NANOSECONDS),
                config.getDaemonMaxCooldown().roundTo(NANOSECONDS),
                System::nanoTime);
    }

    Daemons(List<URI> uris, long cooldown, long maxCooldown, LongSupplier nanoTime)
    {
        this.uris = List.copyOf(uris);
        this.cooldown = cooldown;
        this.maxCooldown = maxCooldown;
        this.nanoTime = nanoTime;
        this.epoch = nanoTime.getAsLong();
        uris.forEach(uri -> states.put(uri, new State()));
    }

    public List<URI> uris()
    {
        return uris;
    }

    /** Nanoseconds on the clock of this class; comparable, unlike {@link System#nanoTime}. */
    long now()
    {
        return nanoTime.getAsLong() - epoch;
    }

    /**
     * @param in daemons in rotation, in order of preference
     * @param out the others, in order of the end of their cooldown
     */
    record Rotation(List<URI> in, List<URI> out) {}

    synchronized Rotation rotation()
    {
        Map<URI, State> current = states;
        return new Rotation(
                uris.stream()
                        .filter(uri -> current.get(uri).status == Status.IN_ROTATION)
                        .toList(),
                uris.stream()
                        .filter(uri -> current.get(uri).status != Status.IN_ROTATION)
                        .sorted(Comparator.comparingLong(uri -> current.get(uri).cooldownEnd))
                        .toList());
    }

    @Managed
    public String getInRotation()
    {
        return rotation().in().toString();
    }

    @Managed
    public String getOutOfRotation()
    {
        return rotation().out().toString();
    }

    /** The daemon that a new operation asks first. */
    public URI preferred()
    {
        Rotation rotation = rotation();
        return rotation.in().isEmpty() ? rotation.out().getFirst() : rotation.in().getFirst();
    }

    /** @return whether this failure removes the daemon from rotation */
    synchronized boolean failed(URI uri, FailureKind kind, long requestStart)
    {
        State state = states.get(uri);
        if (!kind.startsCooldown() || state.status != Status.IN_ROTATION
                || requestStart < state.since) {
            return false;
        }
        cool(state);
        return true;
    }

    @GuardedBy("this")
    private void cool(State state)
    {
        // doubled at most 62 times, so that the shift does not overflow
        int doublings = Math.min(state.failures, Long.numberOfLeadingZeros(cooldown | 1) - 2);
        state.failures++;
        state.status = Status.COOLING;
        state.since = now();
        state.cooldownEnd = state.since + Math.min(cooldown << doublings, maxCooldown);
    }

    /** @return whether this success returns the daemon to rotation */
    synchronized boolean succeeded(URI uri, long requestStart)
    {
        State state = states.get(uri);
        if (requestStart < state.since) {
            return false;
        }
        state.failures = 0;
        return rotateIn(state);
    }

    @GuardedBy("this")
    private boolean rotateIn(State state)
    {
        boolean changed = state.status != Status.IN_ROTATION;
        if (changed) {
            state.status = Status.IN_ROTATION;
            state.since = now();
        }
        return changed;
    }

    /**
     * The daemons whose cooldown has ended and that no caller probes yet. The caller must report
     * the result of each probe by {@link #probed}.
     */
    synchronized List<URI> claimProbes()
    {
        List<URI> claimed = new ArrayList<>();
        states.forEach((uri, state) -> {
            if (state.status == Status.COOLING && now() >= state.cooldownEnd) {
                state.status = Status.PROBING;
                claimed.add(uri);
            }
        });
        return claimed;
    }

    /**
     * The daemon returns to rotation, or starts another cooldown. A success does not reset the
     * length of the cooldown: only a request does.
     *
     * @return whether the daemon returns to rotation
     */
    synchronized boolean probed(URI uri, boolean success)
    {
        State state = states.get(uri);
        if (state.status != Status.PROBING) {
            return false;
        }
        if (success) {
            return rotateIn(state);
        }
        cool(state);
        return false;
    }
}
