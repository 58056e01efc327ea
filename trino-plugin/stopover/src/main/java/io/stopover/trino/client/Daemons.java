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

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.LongSupplier;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

/**
 * The daemons of this node in order of preference, and which of them are in rotation: one circuit
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
        /** Requests that started before this time do not affect the current status. */
        private long since = Long.MIN_VALUE;
        private long cooldownEnd;
        /** Consecutive failures, which no success has interrupted. */
        private int failures;
    }

    private final long cooldown;
    private final long maxCooldown;
    private final LongSupplier nanoTime;
    private final long epoch;
    @GuardedBy("this")
    private List<Daemon> order = List.of();
    @GuardedBy("this")
    private final Map<Daemon, State> states = new HashMap<>();

    @Inject
    public Daemons(StopoverConfig config)
    {
        this(
                config.getUris().stream().map(Daemon::of).toList(),
                config.getDaemonCooldown().roundTo(NANOSECONDS),
                config.getDaemonMaxCooldown().roundTo(NANOSECONDS),
                System::nanoTime);
    }

    Daemons(List<Daemon> order, long cooldown, long maxCooldown, LongSupplier nanoTime)
    {
        this.cooldown = cooldown;
        this.maxCooldown = maxCooldown;
        this.nanoTime = nanoTime;
        this.epoch = nanoTime.getAsLong();
        update(order);
    }

    /** Replaces the daemons and their order. Those that remain keep their status. */
    synchronized void update(List<Daemon> newOrder)
    {
        order = List.copyOf(newOrder);
        states.keySet().retainAll(order);
        order.forEach(daemon -> states.computeIfAbsent(daemon, _ -> new State()));
    }

    /** All daemons in order of preference. */
    public synchronized List<Daemon> all()
    {
        return order;
    }

    public synchronized boolean isInRotation(Daemon daemon)
    {
        State state = states.get(daemon);
        return state != null && state.status == Status.IN_ROTATION;
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
    record Rotation(List<Daemon> in, List<Daemon> out) {}

    synchronized Rotation rotation()
    {
        Map<Daemon, State> current = states;
        return new Rotation(
                order.stream()
                        .filter(daemon -> current.get(daemon).status == Status.IN_ROTATION)
                        .toList(),
                order.stream()
                        .filter(daemon -> current.get(daemon).status != Status.IN_ROTATION)
                        .sorted(Comparator.comparingLong(daemon -> current.get(daemon).cooldownEnd))
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

    /** The daemon that a new operation tries first. */
    public Daemon preferred()
    {
        Rotation rotation = rotation();
        return rotation.in().isEmpty() ? rotation.out().getFirst() : rotation.in().getFirst();
    }

    /** @return whether this failure removes the daemon from rotation */
    synchronized boolean failed(Daemon daemon, FailureKind kind, long requestStart)
    {
        State state = states.get(daemon);
        if (!kind.startsCooldown() || state == null || state.status != Status.IN_ROTATION
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
    synchronized boolean succeeded(Daemon daemon, long requestStart)
    {
        State state = states.get(daemon);
        if (state == null || requestStart < state.since) {
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
    synchronized List<Daemon> claimProbes()
    {
        List<Daemon> claimed = new ArrayList<>();
        states.forEach((daemon, state) -> {
            if (state.status == Status.COOLING && now() >= state.cooldownEnd) {
                state.status = Status.PROBING;
                claimed.add(daemon);
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
    synchronized boolean probed(Daemon daemon, boolean success)
    {
        State state = states.get(daemon);
        if (state == null || state.status != Status.PROBING) {
            return false;
        }
        if (success) {
            return rotateIn(state);
        }
        cool(state);
        return false;
    }
}
