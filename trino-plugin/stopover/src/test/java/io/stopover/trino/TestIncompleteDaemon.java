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
package io.stopover.trino;

import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.List;
import java.util.Map;

import static io.stopover.trino.FakeDaemon.baseDirectory;
import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static org.assertj.core.api.Assertions.assertThat;

/** Queries whose preferred daemon lacks a base directory, so that it cannot find the exchange. */
@Timeout(60)
class TestIncompleteDaemon
{
    private final FakeDaemon.Store store = new FakeDaemon.Store();
    /** It does not have what the other one stores. */
    private final FakeDaemon incomplete = new FakeDaemon(new FakeDaemon.Store());
    private final FakeDaemon complete = new FakeDaemon(store);

    @AfterEach
    void stop()
    {
        incomplete.close();
        complete.close();
    }

    private void run(ExchangeManager manager)
            throws Exception
    {
        Exchange exchange = exchange(manager, 2, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "a"), Map.entry(1, "b")));
        write(manager, exchange, 1, 0, List.of(Map.entry(0, "c")));
        exchange.allRequiredSinksFinished();
        assertThat(readAll(source(manager, handles(exchange), Map.of(0, 0, 1, 0))))
                .containsExactlyInAnyOrder("a", "b", "c");
        exchange.close();
    }

    @Test
    void testDaemonThatIsKnownToBeIncompleteIsNotAsked()
            throws Exception
    {
        complete.setBaseDirectories(
                baseDirectory("main", "id-of-main", "active"),
                baseDirectory("more", "id-of-more", "active"));
        ExchangeManager manager = Testing.manager(Map.of(), incomplete, complete);
        while (incomplete.probes.size() + complete.probes.size() < 4) {
            Thread.sleep(10);
        }
        // the answers have been read when the first exchange is announced at the other daemon
        while (complete.requests("PUT").isEmpty()) {
            exchange(manager, 1, false).close();
            Thread.sleep(10);
        }
        int before = incomplete.requests("").size();
        run(manager);
        assertThat(incomplete.requests("").stream().skip(before))
                .as("only queried for what it has in memory")
                .allMatch(request -> request.endsWith("/hot-handles"));
        manager.shutdown();
    }

    /** Whatever it answers about objects that it lacks, the next daemon is tried. */
    @Test
    void testNextDaemonIsAskedBeforeAnythingIsKnown()
            throws Exception
    {
        incomplete.onNext("PUT /v1/exchanges/[^/]+$", problem("storage-unavailable", 503, true));
        for (int i = 0; i < 10; i++) {
            incomplete.onNext("GET /v1/daemon", problem("internal", 500, true));
        }
        ExchangeManager manager = Testing.manager(Map.of(), incomplete, complete);
        run(manager);
        assertThat(incomplete.requests("")).as("it was asked first").isNotEmpty();
        manager.shutdown();
    }
}
