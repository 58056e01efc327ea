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

import io.airlift.units.Duration;
import io.stopover.trino.client.FailoverPolicy.Ask;
import io.stopover.trino.client.FailoverPolicy.Decision;
import io.stopover.trino.client.FailoverPolicy.GiveUp;
import io.stopover.trino.client.FailoverPolicy.Pause;
import io.stopover.trino.client.FailoverPolicy.Pin;
import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;

import static io.stopover.trino.client.FailureKind.CORRUPT;
import static io.stopover.trino.client.FailureKind.DISCONNECTED;
import static io.stopover.trino.client.FailureKind.DRAINING;
import static io.stopover.trino.client.FailureKind.FINAL;
import static io.stopover.trino.client.FailureKind.LOCAL;
import static io.stopover.trino.client.FailureKind.REFUSED;
import static io.stopover.trino.client.FailureKind.REJECTED;
import static io.stopover.trino.client.FailureKind.TIMED_OUT;
import static io.stopover.trino.client.FailureKind.UNAUTHORIZED;
import static io.stopover.trino.client.FailureKind.UNAVAILABLE;
import static io.stopover.trino.client.FailureKind.UNREACHABLE;
import static io.stopover.trino.client.TestFailureKind.failure;
import static io.stopover.trino.client.TestFailureKind.problem;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;

/** Decisions for every kind of failure, without I/O and on a clock of the test. */
class TestFailoverPolicy
{
    private static final Daemon A = Daemon.of(URI.create("http://a:7077"));
    private static final Daemon B = Daemon.of(URI.create("http://b:7077"));
    private static final Daemon C = Daemon.of(URI.create("http://c:7077"));
    private static final List<FailureKind> RETRYABLE = List.of(
            REFUSED, UNREACHABLE, TIMED_OUT, DISCONNECTED, CORRUPT, DRAINING, UNAVAILABLE);
    private static final double BUDGET_SECONDS = 30;

    private final TestingClock clock = new TestingClock();
    private Daemons daemons = daemons(A, B);

    private Daemons daemons(Daemon... uris)
    {
        return new Daemons(List.of(uris), SECONDS.toNanos(1), SECONDS.toNanos(30), clock);
    }

    private Backoff backoff(double budgetSeconds)
    {
        return new Backoff(
                new Backoff.Delays(new Duration(100, MILLISECONDS), new Duration(5, SECONDS)),
                new Duration(budgetSeconds, SECONDS),
                clock,
                () -> 1);
    }

    private FailoverPolicy anyDaemon()
    {
        return FailoverPolicy.anyDaemon(daemons, backoff(BUDGET_SECONDS));
    }

    private FailoverPolicy pinned(boolean confirmable)
    {
        SinkId sink = new SinkId(new DescribedExchange("exchange", Optional.empty()), 0, 0);
        Pin pin = new Pin(A, confirmable, cause -> new DaemonGoneException(sink, A, cause));
        return FailoverPolicy.pinned(daemons, backoff(BUDGET_SECONDS), pin);
    }

    private static void assertAsks(FailoverPolicy policy, Daemon daemon)
    {
        assertThat(policy.next()).isEqualTo(new Ask(daemon));
    }

    private void assertPauses(FailoverPolicy policy)
    {
        Decision decision = policy.next();
        assertThat(decision).isInstanceOf(Pause.class);
        clock.advance(((Pause) decision).nanos());
    }

    private static IOException assertGivesUp(FailoverPolicy policy)
    {
        Decision decision = policy.next();
        assertThat(decision).isInstanceOf(GiveUp.class);
        return ((GiveUp) decision).failure();
    }

    /** Fails every request alike; returns the daemons tried before the operation failed. */
    private List<Daemon> exhaust(FailoverPolicy policy, FailureKind kind, double requestSeconds)
    {
        List<Daemon> asked = new ArrayList<>();
        while (true) {
            switch (policy.next()) {
                case Ask(Daemon daemon) -> {
                    asked.add(daemon);
                    clock.advanceSeconds(requestSeconds);
                    policy.failed(daemon, failure(kind));
                }
                case Pause(long nanos) -> clock.advance(nanos);
                case GiveUp _ -> {
                    return asked;
                }
            }
        }
    }

    @Test
    void testPreferredDaemonIsAskedFirst()
    {
        FailoverPolicy policy = anyDaemon();
        assertAsks(policy, A);
        assertThat(policy.succeeded(A)).isFalse();
    }

    @Test
    void testNextDaemonIsAskedAtOnceAfterEveryRetryableFailure()
    {
        for (FailureKind kind : RETRYABLE) {
            daemons = daemons(A, B);
            FailoverPolicy policy = anyDaemon();
            assertAsks(policy, A);
            policy.failed(A, failure(kind));
            assertAsks(policy, B);
        }
    }

    @Test
    void testRoundIsRepeatedAfterAPause()
    {
        FailoverPolicy policy = anyDaemon();
        for (int round = 0; round < 3; round++) {
            assertAsks(policy, A);
            policy.failed(A, failure(UNAVAILABLE));
            assertAsks(policy, B);
            policy.failed(B, failure(UNAVAILABLE));
            assertPauses(policy);
        }
    }

    @Test
    void testLostResponseThatOutlastsTheBudgetIsRepeatedOnce()
    {
        daemons = daemons(A);
        assertThat(exhaust(anyDaemon(), TIMED_OUT, 300)).containsExactly(A, A);
        daemons = daemons(A);
        assertThat(exhaust(pinned(false), TIMED_OUT, 300)).containsExactly(A, A);
    }

    @Test
    void testHungDaemonIsLeftWhileAnotherAnswers()
    {
        FailoverPolicy first = anyDaemon();
        assertAsks(first, A);
        clock.advanceSeconds(30);
        assertThat(first.failed(A, failure(TIMED_OUT))).isTrue();
        assertAsks(first, B);
        first.failed(B, failure(UNAVAILABLE));
        assertPauses(first);
        assertAsks(first, B);
        first.succeeded(B);
        assertAsks(anyDaemon(), B);
    }

    @Test
    void testDaemonOutsideRotationIsAskedIfNoOtherIsLeft()
    {
        exhaust(anyDaemon(), REFUSED, 0);
        FailoverPolicy policy = anyDaemon();
        assertAsks(policy, A);
        policy.failed(A, failure(REFUSED));
        assertAsks(policy, B);
        assertThat(policy.succeeded(B)).as("returns by its success").isTrue();
        assertAsks(anyDaemon(), B);
    }

    @Test
    void testEveryDaemonIsAskedBeforeGivingUp()
    {
        daemons = daemons(A, B, C);
        daemons.failed(A, TIMED_OUT, daemons.now());
        daemons.failed(C, REFUSED, daemons.now());
        List<Daemon> asked = exhaust(anyDaemon(), UNAVAILABLE, 1);
        assertThat(asked.getFirst()).isEqualTo(B);
        assertThat(asked.subList(asked.size() - 2, asked.size())).containsExactly(A, C);
        assertThat(asked.subList(0, asked.size() - 2)).hasSizeGreaterThan(3).containsOnly(B);
    }

    @Test
    void testRejectionIsTriedAtEachDaemonOnce()
    {
        for (FailureKind kind : List.of(REJECTED, UNAUTHORIZED)) {
            daemons = daemons(A, B, C);
            assertThat(exhaust(anyDaemon(), kind, 1)).containsExactly(A, B, C);
        }
        FailoverPolicy policy = anyDaemon();
        daemons = daemons(A, B);
        policy = anyDaemon();
        assertAsks(policy, A);
        policy.failed(A, failure(REJECTED));
        assertAsks(policy, B);
        policy.failed(B, failure(UNAVAILABLE));
        assertPauses(policy);
        assertAsks(policy, B);
        policy.succeeded(B);
    }

    @Test
    void testRejectionByAllIsThrownAsItIs()
    {
        FailoverPolicy policy = anyDaemon();
        IOException first = problem("invalid-handle", false);
        IOException second = problem("data-lost", false);
        assertAsks(policy, A);
        policy.failed(A, first);
        assertAsks(policy, B);
        policy.failed(B, second);
        assertThat(assertGivesUp(policy)).isSameAs(first).hasSuppressedException(second);
    }

    /** A daemon that refuses the token cannot have the exchange. */
    @Test
    void testRejectedCredentialsOutweighOtherRejections()
    {
        FailoverPolicy policy = anyDaemon();
        IOException unauthorized = problem("unauthorized", false);
        assertAsks(policy, A);
        policy.failed(A, problem("exchange-not-found", false));
        assertAsks(policy, B);
        policy.failed(B, unauthorized);
        assertThat(assertGivesUp(policy)).isSameAs(unauthorized);
    }

    /** The daemon that does not answer might have the exchange that the other does not find. */
    @Test
    void testRejectionIsNotConclusiveWhileADaemonDoesNotAnswer()
    {
        FailoverPolicy policy = anyDaemon();
        policy.next();
        policy.failed(A, problem("exchange-not-found", false));
        IOException refused = failure(REFUSED);
        IOException exhausted = null;
        while (exhausted == null) {
            switch (policy.next()) {
                case Ask(Daemon daemon) -> {
                    assertThat(daemon).isEqualTo(B);
                    policy.failed(B, refused);
                }
                case Pause(long nanos) -> clock.advance(nanos);
                case GiveUp(IOException failure) -> exhausted = failure;
            }
        }
        assertThat(exhausted).isInstanceOf(RetriesExhaustedException.class)
                .hasCause(refused)
                .hasMessageContaining("connection refused")
                .hasMessageContaining("exchange-not-found");
    }

    @Test
    void testFinalAndLocalFailuresEndTheOperation()
    {
        for (FailureKind kind : List.of(FINAL, LOCAL)) {
            daemons = daemons(A, B);
            for (FailoverPolicy policy : List.of(anyDaemon(), pinned(true))) {
                IOException failure = failure(kind);
                assertAsks(policy, A);
                assertThat(policy.failed(A, failure)).isFalse();
                assertThat(assertGivesUp(policy)).isSameAs(failure);
            }
            assertThat(daemons.preferred()).isEqualTo(A);
        }
    }

    @Test
    void testGivingUpTellsAttemptsDurationAndEveryDaemon()
    {
        FailoverPolicy policy = anyDaemon();
        IOException exception = null;
        int attempts = 0;
        while (exception == null) {
            switch (policy.next()) {
                case Ask(Daemon daemon) -> {
                    attempts++;
                    clock.advanceSeconds(20);
                    policy.failed(daemon, new RequestFailedException(
                            new RequestInfo(daemon, "GET", "/", "id", "node", "property"),
                            TIMED_OUT,
                            new IOException("slow")));
                }
                case Pause(long nanos) -> clock.advance(nanos);
                case GiveUp(IOException failure) -> exception = failure;
            }
        }
        assertThat(exception)
                .hasMessageContaining("gave up after %s attempts in 80".formatted(attempts))
                .hasMessageContaining(A.toString())
                .hasMessageContaining(B.toString());
    }

    @Test
    void testPinnedOperationIsRepeatedAtItsDaemonOnly()
    {
        for (FailureKind kind : RETRYABLE) {
            if (kind != REFUSED) {
                daemons = daemons(A, B);
                assertThat(exhaust(pinned(false), kind, 1)).hasSizeGreaterThan(3).containsOnly(A);
            }
        }
    }

    @Test
    void testThreeRefusedConnectionsMeanThatTheDaemonIsGone()
    {
        FailoverPolicy policy = pinned(false);
        assertThat(exhaust(policy, REFUSED, 0)).hasSize(FailoverPolicy.REFUSALS_UNTIL_GONE);
        assertThat(assertGivesUp(policy)).isInstanceOf(DaemonGoneException.class);
    }

    /** Two seconds without DNS failed attempts although their daemon was running. */
    @Test
    void testOnlyRefusedConnectionsInARowMeanThatTheDaemonIsGone()
    {
        for (FailureKind kind : List.of(UNREACHABLE, TIMED_OUT, DISCONNECTED)) {
            daemons = daemons(A, B);
            FailoverPolicy policy = pinned(false);
            assertThat(exhaust(policy, kind, 0).size()).isGreaterThan(5);
            assertThat(assertGivesUp(policy)).isInstanceOf(RetriesExhaustedException.class);
        }
        FailoverPolicy policy = pinned(false);
        for (int i = 0; i < 3; i++) {
            for (FailureKind kind : List.of(REFUSED, REFUSED, UNREACHABLE)) {
                assertAsks(policy, A);
                policy.failed(A, failure(kind));
                assertPauses(policy);
            }
        }
        assertAsks(policy, A);
    }

    @Test
    void testPinnedOperationSurvivesATokenRotation()
    {
        FailoverPolicy policy = pinned(false);
        for (int i = 0; i < 3; i++) {
            assertAsks(policy, A);
            policy.failed(A, failure(UNAUTHORIZED));
            assertPauses(policy);
        }
        assertAsks(policy, A);
        policy.succeeded(A);
    }

    @Test
    void testPinnedOperationEndsAtARejection()
    {
        FailoverPolicy policy = pinned(true);
        IOException rejection = problem("sink-not-found", false);
        assertAsks(policy, A);
        policy.failed(A, rejection);
        assertThat(assertGivesUp(policy)).as("it was never executed").isSameAs(rejection);
    }

    @Test
    void testPinnedSuccessDoesNotReturnADaemonToRotation()
    {
        daemons.failed(A, DRAINING, daemons.now());
        FailoverPolicy policy = pinned(false);
        assertAsks(policy, A);
        assertThat(policy.succeeded(A)).isFalse();
        assertThat(daemons.preferred()).isEqualTo(B);
    }

    /** A finish was committed but its response lost; it failed, and no other daemon was queried. */
    @Test
    void testFinishWithUnknownOutcomeIsConfirmedByTheOthers()
    {
        daemons = daemons(A, B, C);
        for (FailureKind kind : List.of(TIMED_OUT, DISCONNECTED, CORRUPT, UNAVAILABLE)) {
            FailoverPolicy policy = pinned(true);
            List<Daemon> asked = new ArrayList<>();
            while (asked.isEmpty() || asked.getLast().equals(A)) {
                switch (policy.next()) {
                    case Ask(Daemon daemon) -> {
                        asked.add(daemon);
                        if (daemon.equals(A)) {
                            clock.advanceSeconds(40);
                            policy.failed(A, failure(kind));
                        }
                    }
                    case Pause(long nanos) -> clock.advance(nanos);
                    case GiveUp(IOException failure) -> throw new AssertionError(failure);
                }
            }
            assertThat(asked).as(kind.name()).containsExactly(A, A, B);
            policy.succeeded(B);
        }
    }

    @Test
    void testFinishThatIsConfirmedNowhereFailsWithTheFailureOfItsDaemon()
    {
        daemons = daemons(A, B, C);
        FailoverPolicy policy = pinned(true);
        IOException failure = null;
        List<Daemon> asked = new ArrayList<>();
        while (failure == null) {
            switch (policy.next()) {
                case Ask(Daemon daemon) -> {
                    asked.add(daemon);
                    policy.failed(daemon, Map.of(
                            A, failure(TIMED_OUT),
                            B, problem("sink-not-found", false),
                            C, failure(UNAVAILABLE)).get(daemon));
                    clock.advanceSeconds(40);
                }
                case Pause(long nanos) -> clock.advance(nanos);
                case GiveUp(IOException last) -> failure = last;
            }
        }
        assertThat(asked).containsExactly(A, A, B, C, C);
        assertThat(failure).isInstanceOf(RetriesExhaustedException.class)
                .hasMessageContaining("no response in time")
                .hasMessageContaining("sink-not-found");
        assertThat(FailureKind.of((IOException) failure.getCause())).isEqualTo(TIMED_OUT);
    }

    @Test
    void testFinishWhoseDaemonIsGoneIsConfirmedByTheOthers()
    {
        FailoverPolicy policy = pinned(true);
        assertAsks(policy, A);
        policy.failed(A, failure(DISCONNECTED));
        for (int i = 0; i < FailoverPolicy.REFUSALS_UNTIL_GONE; i++) {
            assertPauses(policy);
            assertAsks(policy, A);
            policy.failed(A, failure(REFUSED));
        }
        assertAsks(policy, B);
        policy.failed(B, problem("sink-not-found", false));
        assertThat(assertGivesUp(policy)).isInstanceOf(DaemonGoneException.class);
    }

    @Test
    void testFinishThatWasNeverSentIsNotConfirmed()
    {
        FailoverPolicy policy = pinned(true);
        assertThat(exhaust(policy, REFUSED, 0)).containsOnly(A);
        assertThat(assertGivesUp(policy)).isInstanceOf(DaemonGoneException.class);
        assertThat(exhaust(pinned(true), UNREACHABLE, 1)).containsOnly(A);
    }

    /**
     * Random fleets, failures and durations, for operations at any daemon: they end within the
     * documented bound, repeat at least once, never try a daemon again that rejected the request,
     * and fail only after every other daemon was tried.
     */
    @Test
    void testRandomOperationsKeepTheirPromises()
    {
        for (int seed = 0; seed < 5_000; seed++) {
            Random random = new Random(seed);
            List<Daemon> uris = IntStream.range(0, 1 + random.nextInt(4))
                    .mapToObj(i -> Daemon.of(URI.create("http://daemon-" + i)))
                    .toList();
            daemons = daemons(uris.toArray(Daemon[]::new));
            uris.forEach(uri -> {
                if (random.nextInt(3) == 0) {
                    daemons.failed(uri, TIMED_OUT, daemons.now());
                }
            });
            double timeout = random.nextInt(100);
            double budget = random.nextInt(60);
            FailoverPolicy policy = FailoverPolicy.anyDaemon(daemons, backoff(budget));
            runRandomly(seed, random, policy, uris, timeout, budget);
        }
    }

    private void runRandomly(
            int seed,
            Random random,
            FailoverPolicy policy,
            List<Daemon> uris,
            double timeout,
            double budget)
    {
        String description = "seed %s".formatted(seed);
        Set<Daemon> rejectedBy = new HashSet<>();
        Map<Daemon, Integer> asked = new HashMap<>();
        boolean fatal = false;
        int retryable = 0;
        long start = clock.getAsLong();
        while (true) {
            Decision decision = policy.next();
            if (decision instanceof GiveUp) {
                break;
            }
            if (decision instanceof Pause(long nanos)) {
                clock.advance(nanos);
                daemons.claimProbes().forEach(uri -> daemons.probed(uri, random.nextBoolean()));
                continue;
            }
            Daemon daemon = ((Ask) decision).daemon();
            assertThat(rejectedBy).as(description).doesNotContain(daemon);
            assertThat(fatal).as(description).isFalse();
            asked.merge(daemon, 1, Integer::sum);
            clock.advanceSeconds(timeout * random.nextDouble());
            FailureKind kind = random.nextInt(20) == 0
                    ? FailureKind.values()[random.nextInt(FailureKind.values().length)]
                    : RETRYABLE.get(random.nextInt(RETRYABLE.size()));
            if (random.nextInt(50) == 0) {
                policy.succeeded(daemon);
                return;
            }
            policy.failed(daemon, failure(kind));
            if (kind == REJECTED || kind == UNAUTHORIZED) {
                rejectedBy.add(daemon);
            }
            fatal |= kind == FINAL || kind == LOCAL;
            retryable += RETRYABLE.contains(kind) ? 1 : 0;
        }
        double seconds = (clock.getAsLong() - start) / 1e9;
        assertThat(seconds).as(description)
                .isLessThanOrEqualTo(2 * uris.size() * timeout + budget + 0.2);
        if (!fatal) {
            assertThat(asked.keySet()).as(description).containsExactlyInAnyOrderElementsOf(uris);
            if (rejectedBy.isEmpty()) {
                assertThat(retryable).as(description).isGreaterThan(1);
            }
        }
    }
}
