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

import java.io.IOException;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.SequencedMap;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;

import static io.stopover.trino.wire.Counts.count;
import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;
import static java.util.stream.Collectors.joining;

/**
 * What one operation does next: send the request to a daemon, pause, or fail. Pure and synchronous:
 * it performs no I/O and reads time only from the clock of {@link Daemons}. Not thread-safe.
 *
 * <p>An operation tries the daemons in rotation one after another, in rounds with a pause between
 * them, until its {@link Backoff} is exhausted. Daemons outside rotation are tried only if none is
 * in rotation. A daemon that rejects the request permanently is not tried again. Before an
 * operation fails, it has tried every daemon that could execute it.
 *
 * <p>An operation on an open sink is pinned to the daemon that holds the sink's pages. Three
 * refused connections in a row mean that this process, and the pages in its memory, are lost. If
 * such an operation may be confirmed by another daemon (finish) and its outcome is unknown, the
 * other daemons are queried before it fails.
 */
final class FailoverPolicy
{
    sealed interface Decision {}

    record Ask(Daemon daemon)
            implements Decision {}

    record Pause(long nanos)
            implements Decision {}

    record GiveUp(IOException failure)
            implements Decision {}

    /**
     * @param confirmable whether another daemon can confirm that the operation was executed
     * @param gone converts the failure if the daemon no longer runs
     */
    record Pin(Daemon daemon, boolean confirmable, UnaryOperator<IOException> gone) {}

    static final int REFUSALS_UNTIL_GONE = 3;
    private static final int CONFIRMATION_ROUNDS = 2;

    private final Daemons daemons;
    private final Backoff backoff;
    private final Optional<Pin> pin;
    private final Set<Daemon> askedThisRound = new HashSet<>();
    /** Daemons that rejected the request for good. */
    private final Map<Daemon, IOException> rejections = new LinkedHashMap<>();
    /** The latest failure of each daemon that may yet execute the request. */
    private final SequencedMap<Daemon, IOException> failures = new LinkedHashMap<>();
    private IOException fatal;
    private boolean outcomeUnknown;
    private int attempts;
    private long start;
    private long requestStart;
    private int refusals;
    private int confirmationRounds;

    private FailoverPolicy(Daemons daemons, Backoff backoff, Optional<Pin> pin)
    {
        this.daemons = requireNonNull(daemons, "daemons is null");
        this.backoff = requireNonNull(backoff, "backoff is null");
        this.pin = requireNonNull(pin, "pin is null");
    }

    static FailoverPolicy anyDaemon(Daemons daemons, Backoff backoff)
    {
        return new FailoverPolicy(daemons, backoff, Optional.empty());
    }

    static FailoverPolicy pinned(Daemons daemons, Backoff backoff, Pin pin)
    {
        return new FailoverPolicy(daemons, backoff, Optional.of(pin));
    }

    Decision next()
    {
        if (fatal != null) {
            return new GiveUp(fatal);
        }
        Optional<Daemon> daemon = candidates()
                .filter(candidate -> !askedThisRound.contains(candidate))
                .findFirst();
        if (daemon.isPresent()) {
            return ask(daemon.get());
        }
        if (candidates().findAny().isPresent()) {
            OptionalLong delay = backoff.nextDelay();
            if (delay.isPresent()) {
                askedThisRound.clear();
                return new Pause(delay.getAsLong());
            }
        }
        return lastResort();
    }

    /** The daemons of a round, in order of preference. */
    private Stream<Daemon> candidates()
    {
        if (pin.isPresent()) {
            return Stream.of(pin.get().daemon()).filter(held -> isEligible(held) && !isGone());
        }
        Daemons.Rotation rotation = daemons.rotation();
        List<Daemon> in = rotation.in().stream().filter(this::isEligible).toList();
        return in.isEmpty() ? rotation.out().stream().filter(this::isEligible) : in.stream();
    }

    private boolean isEligible(Daemon daemon)
    {
        return !rejections.containsKey(daemon);
    }

    private boolean isGone()
    {
        return refusals >= REFUSALS_UNTIL_GONE;
    }

    private Decision ask(Daemon daemon)
    {
        requestStart = daemons.now();
        if (attempts == 0) {
            start = requestStart;
        }
        attempts++;
        return new Ask(daemon);
    }

    private Decision lastResort()
    {
        if (pin.isPresent() && !(pin.get().confirmable() && outcomeUnknown)) {
            return giveUp();
        }
        Optional<Daemon> unasked = daemons.all().stream()
                .filter(other -> isEligible(other) && isOther(other)
                        && !failures.containsKey(other))
                .findFirst();
        if (unasked.isPresent()) {
            return ask(unasked.get());
        }
        if (pin.isPresent() && confirmationRounds < CONFIRMATION_ROUNDS - 1
                && failures.keySet().stream().anyMatch(this::isOther)) {
            confirmationRounds++;
            failures.keySet().removeIf(this::isOther);
            return new Pause(backoff.initialDelay());
        }
        return giveUp();
    }

    private boolean isOther(Daemon daemon)
    {
        return pin.map(pinned -> !pinned.daemon().equals(daemon)).orElse(true);
    }

    /** @return whether this failure removes the daemon from rotation */
    boolean failed(Daemon daemon, IOException failure)
    {
        FailureKind kind = FailureKind.of(failure);
        backoff.failed();
        askedThisRound.add(daemon);
        outcomeUnknown |= kind.isOutcomeUnknown();
        if (!isOther(daemon)) {
            refusals = kind == FailureKind.REFUSED ? refusals + 1 : 0;
        }
        switch (kind) {
            case LOCAL, FINAL -> fatal = failure;
            case REJECTED -> reject(daemon, failure);
            case UNAUTHORIZED -> {
                // a daemon that accepted this sink before may be about to reload its tokens
                if (isOther(daemon)) {
                    reject(daemon, failure);
                }
                else {
                    failures.putLast(daemon, failure);
                }
            }
            default -> failures.putLast(daemon, failure);
        }
        return daemons.failed(daemon, kind, requestStart);
    }

    private void reject(Daemon daemon, IOException failure)
    {
        failures.remove(daemon);
        rejections.put(daemon, failure);
    }

    /** @return whether this success returns the daemon to rotation */
    boolean succeeded(Daemon daemon)
    {
        // an open sink continues at a draining daemon, which must not be preferred for new ones
        return pin.isEmpty() && daemons.succeeded(daemon, requestStart);
    }

    private GiveUp giveUp()
    {
        if (pin.isPresent()) {
            Daemon daemon = pin.get().daemon();
            IOException rejection = rejections.get(daemon);
            if (rejection != null) {
                return new GiveUp(withSuppressed(rejection));
            }
            IOException failure = exhausted(failures.get(daemon));
            return new GiveUp(isGone() ? pin.get().gone().apply(failure) : failure);
        }
        if (failures.isEmpty()) {
            return new GiveUp(withSuppressed(mostTentative(rejections.values())));
        }
        // not all daemons have rejected the request: one that does not answer might accept it
        return new GiveUp(exhausted(failures.sequencedValues().getLast()));
    }

    /** A daemon that does not accept the credentials has not judged the request itself. */
    private static IOException mostTentative(Iterable<IOException> rejections)
    {
        IOException first = null;
        for (IOException rejection : rejections) {
            if (FailureKind.of(rejection) == FailureKind.UNAUTHORIZED) {
                return rejection;
            }
            first = first == null ? rejection : first;
        }
        return first;
    }

    private IOException exhausted(IOException failure)
    {
        double seconds = (daemons.now() - start) / (double) SECONDS.toNanos(1);
        String others = others(failure)
                .map(other -> "; at another daemon: " + other.getMessage())
                .collect(joining());
        return new RetriesExhaustedException(
                "gave up after %s in %.1f s".formatted(count(attempts, "attempt"), seconds),
                withSuppressed(failure),
                others);
    }

    private IOException withSuppressed(IOException failure)
    {
        others(failure).forEach(failure::addSuppressed);
        return failure;
    }

    private Stream<IOException> others(IOException failure)
    {
        return Stream.concat(rejections.values().stream(), failures.values().stream())
                .filter(other -> other != failure);
    }
}
