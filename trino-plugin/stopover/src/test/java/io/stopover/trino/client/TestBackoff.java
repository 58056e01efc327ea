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
import org.junit.jupiter.api.Test;

import java.util.OptionalLong;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;

class TestBackoff
{
    private static final Backoff.Delays DELAYS =
            new Backoff.Delays(new Duration(100, MILLISECONDS), new Duration(1, SECONDS));

    private final TestingClock clock = new TestingClock();

    /** With the default write-timeout (5 min) and sink-retry-time (30 s) no batch was repeated. */
    @Test
    void testRequestLongerThanTheBudgetIsRepeatedOnce()
    {
        Backoff backoff = backoff(new Duration(30, SECONDS));
        clock.advanceSeconds(300);
        backoff.failed();
        assertThat(backoff.nextDelay()).hasValue(MILLISECONDS.toNanos(100));
        clock.advanceSeconds(300);
        backoff.failed();
        assertThat(backoff.nextDelay()).isEmpty();
    }

    @Test
    void testFirstRepetitionIsGrantedWithoutAnyBudget()
    {
        Backoff backoff = backoff(new Duration(0, SECONDS));
        backoff.failed();
        assertThat(backoff.nextDelay()).isPresent();
        backoff.failed();
        assertThat(backoff.nextDelay()).isEmpty();
    }

    @Test
    void testBudgetStartsAtTheFirstFailure()
    {
        Backoff backoff = backoff(new Duration(10, SECONDS));
        clock.advanceSeconds(60);
        backoff.failed();
        backoff.nextDelay();
        clock.advanceSeconds(9.9);
        backoff.failed();
        assertThat(backoff.nextDelay()).isPresent();
        clock.advanceSeconds(0.1);
        backoff.failed();
        assertThat(backoff.nextDelay()).isEmpty();
        assertThat(backoff.nextDelay()).isEmpty();
    }

    @Test
    void testDelaysDoubleUpToTheMaximumAndEndWithTheBudget()
    {
        Backoff backoff = backoff(new Duration(2, SECONDS));
        backoff.failed();
        long[] expected = {100, 200, 400, 800, 500};
        for (long millis : expected) {
            assertThat(backoff.nextDelay()).hasValue(MILLISECONDS.toNanos(millis));
            clock.advance(MILLISECONDS.toNanos(millis));
            backoff.failed();
        }
        assertThat(backoff.nextDelay()).isEmpty();
    }

    @Test
    void testProgressRestoresTheBudgetAndTheDelays()
    {
        Backoff backoff = backoff(new Duration(1, SECONDS));
        backoff.failed();
        backoff.nextDelay();
        clock.advanceSeconds(5);
        backoff.failed();
        assertThat(backoff.nextDelay()).isEmpty();
        backoff.progressed();
        clock.advanceSeconds(5);
        backoff.failed();
        assertThat(backoff.nextDelay()).hasValue(MILLISECONDS.toNanos(100));
    }

    @Test
    void testJitterHalvesTheDelayAtMost()
    {
        Backoff none = new Backoff(DELAYS, new Duration(10, SECONDS), clock, () -> 0);
        none.failed();
        assertThat(none.nextDelay()).isEqualTo(OptionalLong.of(MILLISECONDS.toNanos(50)));
        assertThat(none.nextDelay()).isEqualTo(OptionalLong.of(MILLISECONDS.toNanos(100)));
    }

    private Backoff backoff(Duration budget)
    {
        return new Backoff(DELAYS, budget, clock, () -> 1);
    }
}
