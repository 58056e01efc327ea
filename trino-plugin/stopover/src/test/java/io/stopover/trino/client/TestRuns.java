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

import io.stopover.trino.FakeDaemon;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.StopoverTlsConfig;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;

import static org.assertj.core.api.Assertions.assertThat;

/** 39 of 40 sinks were lost behind a load balancer, and no message showed the cause. */
@Timeout(60)
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

    /** Through the client: each response comes from another daemon, as behind a load balancer. */
    @Test
    void testLoadBalancerIsRecognisedByTheResponses()
    {
        try (FakeDaemon balancer = new FakeDaemon(new FakeDaemon.Store())) {
            StopoverConfig config = new StopoverConfig().setUris(balancer.uri().toString());
            HttpTransport transport =
                    new HttpTransport(config, new StopoverTlsConfig(), new Token(config));
            DaemonProbe probe = new DaemonProbe(transport, config);
            Daemon daemon = Daemon.of(balancer.uri());
            List<String> runs = new ArrayList<>();
            List<String> messages = TestFailureLog.messages(Runs.class, () -> {
                for (int request = 0; request < 10; request++) {
                    balancer.setRun(request % 2 == 0 ? "run-a" : "run-b");
                    runs.add(info(probe, daemon).run());
                    assertThat(probe.run(daemon)).contains(runs.getLast());
                }
            });
            transport.close();
            assertThat(runs.subList(0, 4)).containsExactly("run-a", "run-b", "run-a", "run-b");
            assertThat(messages).singleElement().asString()
                    .startsWith("WARNING Several Stopover daemons answer at " + balancer.uri())
                    .contains("run-a", "run-b", "stopover.uris");
        }
    }

    private static DaemonInfo info(DaemonProbe probe, Daemon daemon)
    {
        try {
            return probe.info(daemon);
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
