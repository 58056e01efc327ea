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

import io.stopover.trino.testing.DaemonProcess;
import io.stopover.trino.testing.SmallExchanges;
import io.stopover.trino.testing.TestingExchangeContext;
import io.trino.plugin.exchange.filesystem.TestExchangeManagerContext;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Path;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.stream.Stream;

import static io.trino.spi.exchange.ExchangeId.createRandomExchangeId;
import static java.util.stream.Collectors.joining;
import static org.assertj.core.api.Assertions.assertThat;

/** A fleet of two daemons, one of which lacks a base directory. Four of six queries failed. */
@Timeout(300)
class TestStopoverBaseDirectories
{
    private static final int QUERIES = 6;
    private static final int TASKS = 8;

    @TempDir
    private Path folder;

    private DaemonProcess daemon(String name, String... bases)
    {
        return new DaemonProcess(folder, name, "[memory]\nbudget = \"256MiB\"\n" + Stream.of(bases)
                .map(base -> "[[base_directory]]\nname = \"%s\"\nuri = \"%s\"\n"
                        .formatted(base, folder.resolve(base).toUri()))
                .collect(joining()));
    }

    private static ExchangeManager manager(DaemonProcess... daemons)
    {
        String uris = Stream.of(daemons)
                .map(daemon -> daemon.uri().toString())
                .collect(joining(","));
        return new StopoverExchangeManagerFactory().create(
                Map.of("stopover.uris", uris), new TestExchangeManagerContext());
    }

    @Test
    void testQueriesSucceedAndTheDaemonIsNamed()
            throws Exception
    {
        Queue<String> messages = new ConcurrentLinkedQueue<>();
        Logger logger = Logger.getLogger("io.stopover.trino.client.FleetLog");
        Handler handler = record(messages);
        logger.addHandler(handler);
        try (DaemonProcess complete = daemon("complete", "one", "two");
                DaemonProcess incomplete = daemon("incomplete", "one")) {
            ExchangeManager manager = manager(incomplete, complete);
            try {
                // the first ones begin before the node has detected the difference
                for (int query = 0; query < QUERIES; query++) {
                    writeAndRead(manager);
                }
                while (messages.isEmpty()) {
                    Thread.sleep(20);
                }
                assertThat(messages).anySatisfy(message -> assertThat(message)
                        .contains(incomplete.uri() + " lacks base directory two")
                        .contains("which " + complete.uri() + " uses"));
                for (int query = 0; query < QUERIES; query++) {
                    writeAndRead(manager);
                }
            }
            finally {
                manager.shutdown();
            }
        }
        finally {
            logger.removeHandler(handler);
        }
    }

    private static Handler record(Queue<String> messages)
    {
        return new Handler()
        {
            @Override
            public void publish(LogRecord message)
            {
                messages.add(message.getMessage());
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        };
    }

    /** Small pages, one after another: their segments go to all base directories in turn. */
    private static void writeAndRead(ExchangeManager manager)
            throws Exception
    {
        ExchangeId id = createRandomExchangeId();
        QueryId query = new QueryId("bases_" + id.getId().replaceAll("[^a-z0-9]", ""));
        SmallExchanges.writeAndRead(manager, new TestingExchangeContext(query, id), TASKS);
    }
}
