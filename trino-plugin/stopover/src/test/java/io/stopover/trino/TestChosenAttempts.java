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

import static io.stopover.trino.FakeDaemon.hang;
import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.manager;
import static io.stopover.trino.Testing.write;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;

/** The daemon that plans learns of chosen attempts while other tasks run. */
@Timeout(60)
class TestChosenAttempts
{
    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final ExchangeManager manager =
            manager(Map.of("stopover.request-timeout", "2s"), first, second);
    private final Exchange exchange = exchange(manager, 1, false);

    @AfterEach
    void stop()
    {
        manager.shutdown();
        first.close();
        second.close();
    }

    private void awaitToldTimes(int times)
            throws InterruptedException
    {
        while (first.chosen.size() < times) {
            Thread.sleep(10);
        }
    }

    /** With the daemon that is asked itself. */
    private String told(String attempts)
    {
        return "{\"attempts\": [%s], \"asked_daemons\": [\"%s\"]}"
                .formatted(attempts, second.run());
    }

    @Test
    void testChosenAttemptsAreToldInBatchesToTheDaemonThatPlans()
            throws Exception
    {
        exchange.sinkFinished(exchange.addSink(0), 0);
        exchange.sinkFinished(exchange.addSink(3), 2);
        exchange.sinkFinished(exchange.addSink(3), 4);
        awaitToldTimes(1);
        exchange.sinkFinished(exchange.addSink(1), 1);
        awaitToldTimes(2);
        assertThat(first.chosen).containsExactly(
                told("[0,0],[3,2]"),
                told("[1,1]"));
        assertThat(second.requests("/chosen")).isEmpty();
    }

    @Test
    void testExchangeWhoseTasksFinishTogetherTellsNothing()
            throws Exception
    {
        for (int task = 0; task < 10; task++) {
            write(manager, exchange, task, 0, List.of(Map.entry(0, "page")));
        }
        exchange.allRequiredSinksFinished();
        assertThat(handles(exchange)).hasSize(1);
        SECONDS.sleep(2);
        assertThat(first.requests("/chosen")).isEmpty();
    }

    @Test
    void testManyChosenAttemptsAreSeveralRequests()
            throws Exception
    {
        for (int task = 0; task < ChosenAttempts.MAX_BATCH + 1; task++) {
            exchange.sinkFinished(exchange.addSink(task), 0);
        }
        awaitToldTimes(2);
        assertThat(first.chosen.get(1))
                .isEqualTo(told("[%s,0]".formatted(ChosenAttempts.MAX_BATCH)));
    }

    @Test
    void testFailureIsIgnored()
            throws Exception
    {
        first.onNext("/chosen", problem("exchange-not-found", 404, false));
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page")));
        while (first.requests("/chosen").isEmpty()) {
            Thread.sleep(10);
        }
        exchange.sinkFinished(exchange.addSink(7), 0);
        awaitToldTimes(1);
        assertThat(first.chosen).as("what failed is not repeated")
                .containsExactly(told("[7,0]"));
    }

    @Test
    void testDaemonThatHangsDelaysNeitherThePlanNorTheClose()
            throws Exception
    {
        first.onNext("/chosen", hang());
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page")));
        while (first.requests("/chosen").isEmpty()) {
            Thread.sleep(10);
        }
        exchange.allRequiredSinksFinished();
        assertThat(handles(exchange)).hasSize(1);
        exchange.close();
    }
}
