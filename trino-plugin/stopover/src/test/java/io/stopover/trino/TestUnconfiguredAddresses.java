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

import io.stopover.trino.client.Home;
import io.stopover.trino.testing.OwnAddress;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSourceHandle;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Stream;

import static io.airlift.slice.Slices.utf8Slice;
import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.source;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assumptions.assumeThat;

/**
 * No connection is opened to an address that was only read from a sink's handle, a source handle,
 * or a daemon's description of itself: so neither pages nor the token can go there.
 */
@Timeout(60)
class TestUnconfiguredAddresses
{
    private static final String TOKEN = "token-0123456789";

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final Queue<String> accepted = new ConcurrentLinkedQueue<>();
    private ServerSocket stranger;
    private ExchangeManager manager;
    private Exchange exchange;

    @BeforeEach
    void start()
            throws IOException
    {
        stranger = new ServerSocket(0);
        Thread.startVirtualThread(this::accept);
        first.setToken(TOKEN);
        second.setToken(TOKEN);
        manager = Testing.manager(
                Map.of("stopover.homes", "true", "stopover.token", TOKEN), first, second);
        exchange = exchange(manager, 1, false);
    }

    private void accept()
    {
        while (true) {
            try (Socket socket = stranger.accept()) {
                accepted.add(socket.toString());
            }
            catch (IOException e) {
                // closed
                return;
            }
        }
    }

    @AfterEach
    void stop()
            throws IOException
    {
        manager.shutdown();
        first.close();
        second.close();
        stranger.close();
    }

    private URI address()
    {
        return URI.create("http://127.0.0.1:" + stranger.getLocalPort());
    }

    /** References to the stranger: with a run of its own, and with that of each daemon. */
    private List<Home> references()
    {
        return Stream.of("0123456789abcdef", first.run(), second.run())
                .map(run -> new Home(run, address()))
                .toList();
    }

    private void write(int task, List<Home> homes, int pages)
            throws Exception
    {
        StopoverSinkInstanceHandle handle = (StopoverSinkInstanceHandle) exchange
                .instantiateSink(exchange.addSink(task), 0).get(10, SECONDS);
        ExchangeSink sink = manager.createSink(new StopoverSinkInstanceHandle(
                handle.exchange(),
                handle.descriptor(),
                handle.task(),
                handle.attempt(),
                handle.partitions(),
                homes,
                handle.traceparent()));
        for (int page = 0; page < pages; page++) {
            sink.add(0, utf8Slice("page %s of task %s".formatted(page, task)));
        }
        sink.finish().get(10, SECONDS);
        exchange.sinkFinished(exchange.addSink(task), 0);
    }

    private List<ExchangeSourceHandle> plan()
            throws Exception
    {
        exchange.allRequiredSinksFinished();
        return handles(exchange);
    }

    private static ExchangeSourceHandle heldBy(ExchangeSourceHandle handle, Home holder)
    {
        StopoverSourceHandle planned = (StopoverSourceHandle) handle;
        return new StopoverSourceHandle(
                planned.exchangeId(),
                planned.partition(),
                planned.bytes(),
                planned.pages(),
                planned.ordered(),
                planned.handle(),
                Optional.of(holder),
                planned.traceparent());
    }

    @Test
    void testAddressOfASinksHandleIsNotConnectedTo()
            throws Exception
    {
        int task = 0;
        for (Home home : references()) {
            write(task++, List.of(home), 2);
        }
        write(task, references(), 0);
        assertThat(store.exchanges.values()).singleElement()
                .satisfies(written -> assertThat(written.committed).hasSize(4));
        assertThat(accepted).isEmpty();
    }

    @Test
    void testAddressOfASourceHandleIsNotConnectedTo()
            throws Exception
    {
        write(0, List.of(), 3);
        List<ExchangeSourceHandle> handles = plan();
        for (Home holder : references()) {
            List<ExchangeSourceHandle> held = handles.stream()
                    .map(handle -> heldBy(handle, holder))
                    .toList();
            assertThat(readAll(source(manager, held, Map.of(0, 0)))).hasSize(3);
            // also not as a way out
            first.onNext("/v1/read", problem("overloaded", 503, true));
            second.onNext("/v1/read", problem("overloaded", 503, true));
            assertThat(readAll(source(manager, held, Map.of(0, 0)))).hasSize(3);
        }
        assertThat(accepted).isEmpty();
    }

    /** Other nodes use the advertised address; this one only the address that it has configured. */
    @Test
    void testAddressThatADaemonAdvertisesIsNotConnectedTo()
            throws Exception
    {
        Optional<InetAddress> own = OwnAddress.find();
        assumeThat(own).as("this machine has an address other than loopback").isPresent();
        URI advertised = URI.create("http://%s:%s".formatted(
                own.get().getHostAddress(), stranger.getLocalPort()));
        for (FakeDaemon daemon : List.of(first, second)) {
            daemon.setAdvertise(advertised.toString());
            daemon.remembers = true;
        }
        ExchangeManager informed = Testing.manager(
                Map.of("stopover.homes", "true", "stopover.token", TOKEN), first, second);
        try {
            awaitHome(informed, advertised);
            exchange = exchange(informed, 1, false);
            Map<Integer, Integer> attempts = new TreeMap<>();
            for (int task = 0; task < 4; task++) {
                Testing.write(informed, exchange, task, 0, List.of(Map.entry(0, "page" + task)));
                attempts.put(task, 0);
            }
            List<ExchangeSourceHandle> handles = plan();
            assertThat(handles).allSatisfy(handle -> assertThat(
                    ((StopoverSourceHandle) handle).holder().orElseThrow().uri())
                    .isEqualTo(advertised));
            assertThat(readAll(source(informed, handles, attempts))).hasSize(4);
        }
        finally {
            informed.shutdown();
        }
        assertThat(accepted).isEmpty();
    }

    /** Daemons are queried in the background. */
    private static void awaitHome(ExchangeManager node, URI uri)
            throws Exception
    {
        List<URI> homes = List.of();
        while (!homes.contains(uri)) {
            Exchange candidate = exchange(node, 1, false);
            StopoverSinkInstanceHandle handle = (StopoverSinkInstanceHandle) candidate
                    .instantiateSink(candidate.addSink(0), 0).get(10, SECONDS);
            homes = handle.homes().stream().map(Home::uri).toList();
            candidate.close();
            Thread.sleep(20);
        }
    }
}
