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
import java.util.List;

import static org.assertj.core.api.Assertions.assertThat;

/** 39 of 40 sinks were lost behind a load balancer, and no message showed the cause. */
class TestRuns
{
    private static final Daemon DAEMON = Daemon.of(URI.create("http://pool:7077"));

    private final Runs runs = new Runs();

    private List<String> observe(String... observed)
    {
        return TestFailureLog.messages(Runs.class, () -> {
            for (String run : observed) {
                runs.observe(DAEMON, run);
            }
        });
    }

    @Test
    void testRunsThatAlternateAreOneWarningThatNamesTheWayOut()
    {
        assertThat(observe("a", "b", "a", "a", "b", "a", "b", "a", "b"))
                .singleElement().asString()
                .startsWith("WARNING Several Stopover daemons answer at http://pool:7077")
                .contains("stopover.uris");
    }

    @Test
    void testRestartsAreNotAWarning()
    {
        // one response of the previous run is read late
        assertThat(observe("a", "b", "a", "b", "c", "d")).isEmpty();
        assertThat(runs.current(DAEMON)).contains("d");
    }
}
