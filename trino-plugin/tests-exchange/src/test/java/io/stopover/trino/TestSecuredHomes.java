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

import io.airlift.slice.Slice;
import io.airlift.slice.Slices;
import io.stopover.trino.testing.DaemonProcess;
import io.stopover.trino.testing.OwnAddress;
import io.stopover.trino.testing.TestingCertificate;
import io.stopover.trino.testing.TestingExchangeContext;
import io.trino.plugin.base.metrics.LongCount;
import io.trino.plugin.exchange.filesystem.TestExchangeManagerContext;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import java.net.InetAddress;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;

import static io.stopover.trino.testing.SmallExchanges.readAll;
import static io.trino.spi.exchange.ExchangeId.createRandomExchangeId;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assumptions.assumeThat;

/**
 * Homes as docs/trino.md sets them up: daemons that listen on all addresses, with TLS and tokens,
 * and advertise an address that other nodes can reach; a coordinator and workers whose tokens have
 * only the scopes that they need. Each node names its own daemon by the loopback address.
 */
@Timeout(300)
class TestSecuredHomes
{
    private static final int TASKS = 20;
    private static final String COORDINATOR = "coordinator-0123456789";
    private static final String WORKER = "worker-0123456789abcdef";

    @TempDir
    private Path folder;
    private String address;
    private TestingCertificate certificate;
    private final List<DaemonProcess> daemons = new ArrayList<>();
    private ExchangeManager coordinator;
    private final List<ExchangeManager> workers = new ArrayList<>();

    @BeforeEach
    void start()
            throws Exception
    {
        Optional<InetAddress> own = OwnAddress.find();
        assumeThat(own).as("this machine has an address other than loopback").isPresent();
        address = own.get().getHostAddress();
        certificate = new TestingCertificate(
                folder, "server", "ip:127.0.0.1,ip:" + address);
        Files.writeString(
                folder.resolve("tokens"),
                "coordinate %s\nwrite,read %s\n".formatted(COORDINATOR, WORKER));
        daemons.add(daemon("first"));
        daemons.add(daemon("second"));
        coordinator = node(COORDINATOR, daemons.getFirst(), daemons.getLast());
        workers.add(node(WORKER, daemons.getFirst(), daemons.getLast()));
        workers.add(node(WORKER, daemons.getLast(), daemons.getFirst()));
    }

    private DaemonProcess daemon(String name)
    {
        return new DaemonProcess(folder, name, "0.0.0.0", """
                [server]
                advertise = "https://%s:$PORT"
                tls_certificate_file = "%s"
                tls_key_file = "%s"
                token_file = "%s"

                [memory]
                budget = "128MiB"

                [[base_directory]]
                uri = "%s"
                fsync = false
                """.formatted(
                address,
                certificate.certificate(),
                certificate.key(),
                folder.resolve("tokens"),
                folder.resolve("data").toUri()));
    }

    private URI advertised(DaemonProcess daemon)
    {
        return URI.create("https://%s:%s".formatted(address, daemon.port()));
    }

    private ExchangeManager node(String token, DaemonProcess own, DaemonProcess other)
    {
        return new StopoverExchangeManagerFactory().create(
                Map.of(
                        "stopover.uris", own.tlsUri() + "," + advertised(other),
                        "stopover.token", token,
                        "stopover.tls.truststore-path", certificate.certificate().toString()),
                new TestExchangeManagerContext());
    }

    @AfterEach
    void stop()
    {
        workers.forEach(ExchangeManager::shutdown);
        if (coordinator != null) {
            coordinator.shutdown();
        }
        daemons.forEach(DaemonProcess::close);
    }

    /** A small sink through a worker; returns the bytes that it says went to its home. */
    private long write(Exchange exchange, int task, ExchangeManager worker, Slice page)
            throws Exception
    {
        StopoverSinkInstanceHandle handle = (StopoverSinkInstanceHandle) exchange
                .instantiateSink(exchange.addSink(task), 0).get(60, SECONDS);
        ExchangeSink sink = worker.createSink(handle);
        sink.add(0, page);
        sink.finish().get(60, SECONDS);
        exchange.sinkFinished(exchange.addSink(task), 0);
        return ((LongCount) sink.getMetrics().orElseThrow().getMetrics()
                .get("StopoverSink.homeBytes")).getTotal();
    }

    /** Nodes query the daemons in the background: before that, they use no home, or only some. */
    private static void await(Callable<Boolean> condition)
            throws Exception
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(60);
        while (!condition.call()) {
            assertThat(System.nanoTime()).as("60 seconds have passed").isLessThan(deadline);
            Thread.sleep(50);
        }
    }

    private boolean usesHomes(ExchangeManager worker)
            throws Exception
    {
        Exchange exchange = exchange(createRandomExchangeId());
        long atHome = 0;
        for (int block = 0; block < 10 && atHome == 0; block++) {
            atHome = write(exchange, block * 256, worker, Slices.utf8Slice("page"));
        }
        exchange.close();
        return atHome > 0;
    }

    private Set<URI> homes()
            throws Exception
    {
        Set<URI> homes = new HashSet<>();
        Exchange exchange = exchange(createRandomExchangeId());
        for (int block = 0; block < 10; block++) {
            StopoverSinkInstanceHandle handle = (StopoverSinkInstanceHandle) exchange
                    .instantiateSink(exchange.addSink(block * 256), 0).get(60, SECONDS);
            handle.homes().forEach(home -> homes.add(home.uri()));
        }
        exchange.close();
        return homes;
    }

    private Exchange exchange(ExchangeId id)
    {
        QueryId query = new QueryId("homes_" + id.getId().replaceAll("[^a-z0-9]", ""));
        return coordinator.createExchange(new TestingExchangeContext(query, id), 1, false);
    }

    @Test
    void testSmallSinksOfAllWorkersMeetAtOneDaemon()
            throws Exception
    {
        Set<URI> advertised = Set.copyOf(daemons.stream().map(this::advertised).toList());
        await(() -> homes().equals(advertised));
        for (ExchangeManager worker : workers) {
            await(() -> usesHomes(worker));
        }
        ExchangeId id = createRandomExchangeId();
        Exchange exchange = exchange(id);
        Set<Slice> written = new HashSet<>();
        long bytes = 0;
        List<Long> atHome = new ArrayList<>();
        ExchangeSourceOutputSelector.Builder selector =
                ExchangeSourceOutputSelector.builder(Set.of(id));
        for (ExchangeManager worker : workers) {
            long sum = 0;
            bytes = 0;
            for (int i = 0; i < TASKS; i++) {
                int task = workers.indexOf(worker) * TASKS + i;
                Slice page = Slices.utf8Slice("page of task %02d".formatted(task));
                sum += write(exchange, task, worker, page);
                bytes += page.length();
                written.add(page);
                selector.include(id, task, 0);
            }
            atHome.add(sum);
        }
        assertThat(atHome)
                .as("all of the worker beside the home go to its own daemon, all others there too")
                .containsExactlyInAnyOrder(0L, bytes);
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles =
                exchange.getSourceHandles().getNextBatch().get(60, SECONDS).handles();
        assertThat(handles).as("one daemon has it all").hasSize(1);
        selector.setPartitionCount(id, 2 * TASKS).setFinal();
        for (ExchangeManager worker : workers) {
            assertThat(readAll(worker, handles, selector.build())).isEqualTo(written);
        }
        exchange.close();
    }
}
