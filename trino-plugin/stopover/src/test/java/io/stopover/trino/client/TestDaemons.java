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

import org.junit.jupiter.api.Test;

import java.net.URI;
import java.util.EnumSet;
import java.util.List;

import static io.stopover.trino.client.FailureKind.DISCONNECTED;
import static io.stopover.trino.client.FailureKind.DRAINING;
import static io.stopover.trino.client.FailureKind.REFUSED;
import static io.stopover.trino.client.FailureKind.TIMED_OUT;
import static io.stopover.trino.client.FailureKind.UNAUTHORIZED;
import static io.stopover.trino.client.FailureKind.UNREACHABLE;
import static java.util.concurrent.TimeUnit.DAYS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;

class TestDaemons
{
    private static final Daemon A = Daemon.of(URI.create("http://a:7077"));
    private static final Daemon B = Daemon.of(URI.create("http://b:7077"));
    private static final Daemon C = Daemon.of(URI.create("http://c:7077"));

    private final TestingClock clock = new TestingClock();
    private final Daemons daemons =
            new Daemons(List.of(A, B, C), SECONDS.toNanos(1), SECONDS.toNanos(10), clock);

    @Test
    void testAllDaemonsAreInRotationAtStart()
    {
        assertThat(daemons.rotation()).isEqualTo(new Daemons.Rotation(List.of(A, B, C), List.of()));
        assertThat(daemons.preferred()).isEqualTo(A);
    }

    @Test
    void testOnlyFailuresOfTheDaemonStartACooldown()
    {
        EnumSet<FailureKind> kinds = EnumSet.of(
                REFUSED, UNREACHABLE, TIMED_OUT, DISCONNECTED, DRAINING, UNAUTHORIZED);
        for (FailureKind kind : FailureKind.values()) {
            Daemons fresh = new Daemons(List.of(A, B), 10, 10, clock);
            assertThat(fresh.failed(A, kind, fresh.now())).isEqualTo(kinds.contains(kind));
            assertThat(fresh.preferred()).isEqualTo(kinds.contains(kind) ? B : A);
        }
    }

    @Test
    void testDaemonReturnsOnlyAfterItsCooldownAndASuccessfulProbe()
    {
        daemons.failed(A, TIMED_OUT, daemons.now());
        assertThat(daemons.rotation()).isEqualTo(new Daemons.Rotation(List.of(B, C), List.of(A)));
        clock.advanceSeconds(0.9);
        assertThat(daemons.claimProbes()).isEmpty();
        clock.advanceSeconds(0.1);
        assertThat(daemons.rotation().in()).containsExactly(B, C);
        assertThat(daemons.claimProbes()).containsExactly(A);
        assertThat(daemons.claimProbes()).as("one probe at a time").isEmpty();
        assertThat(daemons.rotation().in()).containsExactly(B, C);
        assertThat(daemons.probed(A, true)).isTrue();
        assertThat(daemons.rotation().in()).containsExactly(A, B, C);
    }

    @Test
    void testCooldownDoublesUpToTheMaximum()
    {
        daemons.failed(A, REFUSED, daemons.now());
        for (double seconds : new double[] {1, 2, 4, 8, 10, 10, 10}) {
            clock.advanceSeconds(seconds - 0.01);
            assertThat(daemons.claimProbes()).isEmpty();
            clock.advanceSeconds(0.01);
            assertThat(daemons.claimProbes()).containsExactly(A);
            assertThat(daemons.probed(A, false)).isFalse();
        }
    }

    @Test
    void testDaemonThatPassesProbesButFailsRequestsIsAskedEverLessOften()
    {
        for (double seconds : new double[] {1, 2, 4, 8, 10, 10}) {
            assertThat(daemons.failed(A, TIMED_OUT, daemons.now())).isTrue();
            clock.advanceSeconds(seconds - 0.01);
            assertThat(daemons.claimProbes()).isEmpty();
            clock.advanceSeconds(0.01);
            daemons.claimProbes();
            daemons.probed(A, true);
        }
        daemons.succeeded(A, daemons.now());
        daemons.failed(A, TIMED_OUT, daemons.now());
        clock.advanceSeconds(1);
        assertThat(daemons.claimProbes()).as("a success resets the cooldown").containsExactly(A);
    }

    @Test
    void testManyRequestsThatFailAtOnceCountAsOneFailure()
    {
        for (int i = 0; i < 100; i++) {
            assertThat(daemons.failed(A, TIMED_OUT, daemons.now())).isEqualTo(i == 0);
        }
        clock.advanceSeconds(1);
        assertThat(daemons.claimProbes()).containsExactly(A);
    }

    @Test
    void testRequestFromBeforeTheReturnSaysNothing()
    {
        long before = daemons.now();
        daemons.failed(A, TIMED_OUT, daemons.now());
        clock.advanceSeconds(1);
        daemons.claimProbes();
        daemons.probed(A, true);
        clock.advanceSeconds(1);
        assertThat(daemons.failed(A, TIMED_OUT, before)).isFalse();
        assertThat(daemons.preferred()).isEqualTo(A);
    }

    @Test
    void testLateSuccessOfAnEarlierRequestDoesNotReturnADrainingDaemon()
    {
        long before = daemons.now();
        clock.advanceSeconds(1);
        daemons.failed(A, DRAINING, daemons.now());
        clock.advanceSeconds(0.1);
        assertThat(daemons.succeeded(A, before)).isFalse();
        assertThat(daemons.preferred()).isEqualTo(B);
        assertThat(daemons.succeeded(A, daemons.now())).as("last resort succeeded").isTrue();
        assertThat(daemons.preferred()).isEqualTo(A);
    }

    @Test
    void testWithoutADaemonInRotationTheOneWithTheEarliestEndOfCooldownIsPreferred()
    {
        daemons.failed(A, TIMED_OUT, daemons.now());
        clock.advanceSeconds(1);
        daemons.claimProbes();
        daemons.probed(A, false);
        daemons.failed(C, REFUSED, daemons.now());
        clock.advanceSeconds(0.5);
        daemons.failed(B, REFUSED, daemons.now());
        assertThat(daemons.rotation().out()).containsExactly(C, B, A);
        assertThat(daemons.preferred()).isEqualTo(C);
    }

    @Test
    void testLongestCooldownsDoNotOverflow()
    {
        long year = DAYS.toNanos(365);
        Daemons slow = new Daemons(List.of(A), SECONDS.toNanos(1), year, clock);
        slow.failed(A, REFUSED, slow.now());
        for (int i = 0; i < 100; i++) {
            clock.advance(year);
            assertThat(slow.claimProbes()).containsExactly(A);
            slow.probed(A, false);
        }
    }
}
