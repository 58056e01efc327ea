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

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import java.util.zip.CRC32C;

import static java.nio.ByteOrder.LITTLE_ENDIAN;
import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.Executors.newVirtualThreadPerTaskExecutor;
import static java.util.stream.Collectors.joining;

/**
 * A scripted daemon in memory, implemented from the protocol page without the plugin's classes.
 * Several of them on one {@link Store} act as daemons with the same base directories. Tests inject
 * a fault per request.
 */
public final class FakeDaemon
        implements AutoCloseable
{
    /** State shared by all daemons: announced exchanges and committed attempts. */
    public static final class Store
    {
        final Map<String, Announced> exchanges = new ConcurrentHashMap<>();
        final Queue<String> closed = new ConcurrentLinkedQueue<>();

        /** The pages of a committed attempt; empty if it is not committed. */
        public List<byte[]> pages(String exchange, int task, int attempt)
        {
            return exchanges.get(exchange).committed
                    .getOrDefault(task + "/" + attempt, List.of()).stream()
                    .map(frame -> Arrays.copyOfRange(frame, 12, frame.length))
                    .toList();
        }
    }

    static final class Announced
    {
        final String properties;
        final Map<String, List<byte[]>> committed = new ConcurrentHashMap<>();

        private Announced(String properties)
        {
            this.properties = properties;
        }
    }

    /** Replaces or wraps the handling of a request. */
    public interface Fault
    {
        void apply(FakeDaemon daemon, HttpExchange request, byte[] body)
                throws Exception;
    }

    static final class ProblemResponse
            extends RuntimeException
    {
        private final String slug;
        private final int status;
        private final boolean retryable;

        ProblemResponse(String slug, int status, boolean retryable)
        {
            super(slug);
            this.slug = slug;
            this.status = status;
            this.retryable = retryable;
        }
    }

    private record Response(int status, byte[] body) {}

    private record Injected(Pattern request, Fault fault) {}

    private record OpenSink(List<byte[]> frames, List<Long> batches) {}

    private static final AtomicLong RUNS = new AtomicLong();
    private static final Pattern SINK =
            Pattern.compile("/v1/exchanges/([^/]+)/sinks/(\\d+)/(\\d+)(?:/(pages|finish|abort))?");
    private static final Pattern PROBE = Pattern.compile("GET /(readyz|v1/daemon)");
    private static final Pattern EXCHANGE =
            Pattern.compile("/v1/exchanges/([^/]+)(/handles|/chosen)?");

    private final Store store;
    private final HttpServer server;
    private final Map<String, OpenSink> sinks = new ConcurrentHashMap<>();
    /** Attempts declared, and neither withdrawn nor written or aborted. */
    final Set<String> declared = ConcurrentHashMap.newKeySet();
    /** Attempts that it has committed since its start. */
    private final Set<String> committedHere = ConcurrentHashMap.newKeySet();
    /** Whether it plans from memory what it has committed. */
    volatile boolean remembers;
    /** A fault for each request, including probes, to which no injected fault applies. */
    volatile Supplier<Optional<Fault>> chaos = Optional::empty;
    private final CountDownLatch hang = new CountDownLatch(1);
    private final List<Injected> faults = new CopyOnWriteArrayList<>();
    /** All requests except {@link #probes}. */
    private final Queue<String> requests = new ConcurrentLinkedQueue<>();
    /** Requests for an exchange that did not describe it. */
    public final Queue<String> undescribed = new ConcurrentLinkedQueue<>();
    /** Health checks, which no fault applies to unless its pattern begins with "GET /". */
    public final List<String> probes = new CopyOnWriteArrayList<>();
    /** The bodies of the requests that reported chosen attempts. */
    final List<String> chosen = new CopyOnWriteArrayList<>();
    /** The bodies of the requests for handles. */
    final List<String> planned = new CopyOnWriteArrayList<>();
    /** The host names of the requests. */
    public final Set<String> hosts = ConcurrentHashMap.newKeySet();
    /** Largest number of pages per handle. */
    volatile int pagesPerHandle = Integer.MAX_VALUE;
    volatile int leaseSeconds = 900;
    volatile String token;
    /** JSON strings. */
    private volatile String advertise = "";
    volatile String zone;
    private volatile String version = "0.1.0";
    private volatile String run = "%016x".formatted(RUNS.incrementAndGet());
    private volatile int oldestProtocol = 1;
    private volatile int newestProtocol = 1;
    /** The version of handles that it writes, and the newest that it reads. */
    private volatile int handleVersion = 1;
    private volatile long maxBatchSize = 32 << 20;
    private volatile long maxPageSize = 16 << 20;
    private volatile long maxPartitions = 65536;
    private volatile String baseDirectories = baseDirectory("main", "id-of-main", "active");
    private volatile String missingBaseDirectories = "";

    public FakeDaemon(Store store)
    {
        this(store, 0);
    }

    FakeDaemon(Store store, int port)
    {
        this(store, InetAddress.getLoopbackAddress(), port);
    }

    public FakeDaemon(Store store, InetAddress address, int port)
    {
        this.store = store;
        try {
            server = HttpServer.create(new InetSocketAddress(address, port), 1000);
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        server.setExecutor(newVirtualThreadPerTaskExecutor());
        server.createContext("/", this::handle);
        server.start();
    }

    public URI uri()
    {
        return URI.create("http://127.0.0.1:" + port());
    }

    public int port()
    {
        return server.getAddress().getPort();
    }

    /** Applies the fault to the next request whose "METHOD /path?query" contains the pattern. */
    public void onNext(String request, Fault fault)
    {
        faults.add(new Injected(Pattern.compile(request), fault));
    }

    public void onNext(String request, int times, Fault fault)
    {
        for (int i = 0; i < times; i++) {
            onNext(request, fault);
        }
    }

    public static Fault problem(String slug, int status, boolean retryable)
    {
        return (daemon, request, body) -> {
            throw new ProblemResponse(slug, status, retryable);
        };
    }

    /** Executes the request and closes the connection without a response. */
    public static Fault loseResponse()
    {
        return (daemon, request, body) -> {
            daemon.serve(request, body);
            request.close();
        };
    }

    /** Executes the request and never responds; holds the connection until the daemon is closed. */
    public static Fault hangAfterExecution()
    {
        return (daemon, request, body) -> {
            daemon.serve(request, body);
            daemon.hang.await();
        };
    }

    /** Executes the request after a while. */
    static Fault delay(long millis)
    {
        return (daemon, request, body) -> {
            Thread.sleep(millis);
            daemon.send(request, daemon.serve(request, body));
        };
    }

    /** Sends the response in small pieces, with a pause after each. */
    static Fault trickle(int pieces, long millis)
    {
        return (daemon, request, body) -> {
            Response response = daemon.serve(request, body);
            int length = response.body().length;
            request.sendResponseHeaders(response.status(), length == 0 ? -1 : length);
            for (int from = 0; from < length; from += Math.ceilDiv(length, pieces)) {
                int end = Math.min(length, from + Math.ceilDiv(length, pieces));
                request.getResponseBody().write(response.body(), from, end - from);
                request.getResponseBody().flush();
                Thread.sleep(millis);
            }
            request.close();
        };
    }

    /** Executes the request, does not answer, and closes the connection. */
    static Fault silence(long millis, boolean execute)
    {
        return (daemon, request, body) -> {
            if (execute) {
                daemon.serve(request, body);
            }
            Thread.sleep(millis);
            request.close();
        };
    }

    /** Sends a part of the response, between none of it and all of it. */
    static Fault truncateAt(double share)
    {
        return (daemon, request, body) -> {
            Response response = daemon.serve(request, body);
            int length = response.body().length;
            request.sendResponseHeaders(response.status(), length == 0 ? -1 : length);
            request.getResponseBody().write(response.body(), 0, (int) (share * length));
            request.getResponseBody().flush();
            request.close();
        };
    }

    /** Neither executes the request nor responds. */
    public static Fault hang()
    {
        return (daemon, request, body) -> daemon.hang.await();
    }

    /** Closes the connection after {@code length} bytes of the response. */
    static Fault truncate(int length)
    {
        return (daemon, request, body) -> {
            Response response = daemon.serve(request, body);
            request.sendResponseHeaders(response.status(), response.body().length);
            request.getResponseBody().write(response.body(), 0, length);
            request.getResponseBody().flush();
            request.close();
        };
    }

    /** Flips a bit of the response. */
    static Fault corrupt(int offset)
    {
        return (daemon, request, body) -> {
            Response response = daemon.serve(request, body);
            response.body()[offset] ^= 1;
            daemon.send(request, response);
        };
    }

    /** An error record follows {@code length} bytes of the response, which end with a page. */
    static Fault problemRecord(int length, String slug, int status, boolean retryable)
    {
        return (daemon, request, body) -> {
            Response response = daemon.serve(request, body);
            byte[] problem =
                    daemon.problemResponse(new ProblemResponse(slug, status, retryable)).body();
            ByteBuffer replaced = ByteBuffer.allocate(length + 8 + problem.length)
                    .order(LITTLE_ENDIAN).put(response.body(), 0, length)
                    .putInt(0xFFFF_FFF2).putInt(problem.length).put(problem);
            daemon.send(request, new Response(200, replaced.array()));
        };
    }

    /** Something in between answers that all is well, and executes nothing. */
    public static Fault answeredByAStranger()
    {
        return (daemon, request, body) -> {
            request.getResponseHeaders().remove("Stopover-Run");
            daemon.send(request, new Response(200, "<html>not a daemon</html>".getBytes(UTF_8)));
        };
    }

    static Fault replaceResponse(byte[] other)
    {
        return (daemon, request, body) -> daemon.send(request, new Response(200, other));
    }

    public void setToken(String token)
    {
        this.token = token;
    }

    public void setAdvertise(String... uris)
    {
        advertise = Stream.of(uris).map(uri -> '"' + uri + '"').collect(joining(","));
    }

    public void setZone(String zone)
    {
        this.zone = zone;
    }

    /** Answers as another run from now on, as another daemon behind the same address. */
    public void setRun(String run)
    {
        this.run = run;
    }

    public void setVersion(String version)
    {
        this.version = version;
    }

    /** Starts again, with support for these protocols. */
    public void upgrade(int oldest, int newest)
    {
        oldestProtocol = oldest;
        newestProtocol = newest;
        restart();
    }

    /** Starts again; from then on writes this version of handles, and reads none that is newer. */
    public void upgradeHandles(int version)
    {
        handleVersion = version;
        restart();
    }

    public void setLimits(long batchSize, long pageSize, long partitions)
    {
        maxBatchSize = batchSize;
        maxPageSize = pageSize;
        maxPartitions = partitions;
    }

    /** @param json the members of {@code base_directories} */
    public void setBaseDirectories(String... json)
    {
        baseDirectories = String.join(",", json);
    }

    /** A member of {@code base_directories}; without an identity or a state if that is null. */
    public static String baseDirectory(String name, String id, String state)
    {
        return """
                {"name": "%s", "uri": "file:///data/%s", "id": %s, "state": %s, \
                "healthy": true, "error": null}"""
                .formatted(name, name, quoted(id), quoted(state));
    }

    private static String quoted(String text)
    {
        return text == null ? null : '"' + text + '"';
    }

    /** The fleet uses a base directory that this daemon lacks. */
    public void setMissingBaseDirectory(String name, String id)
    {
        missingBaseDirectories = "{\"name\": \"%s\", \"id\": \"%s\"}".formatted(name, id);
    }

    public List<String> requests(String part)
    {
        return requests.stream().filter(request -> request.contains(part)).toList();
    }

    @Override
    public void close()
    {
        hang.countDown();
        server.stop(0);
    }

    private void handle(HttpExchange request)
            throws IOException
    {
        byte[] body = request.getRequestBody().readAllBytes();
        String line = line(request, body);
        hosts.add(request.getRequestHeaders().getFirst("Host"));
        (PROBE.matcher(line).matches() ? probes : requests).add(line);
        try (request) {
            try {
                handle(request, line, body);
            }
            catch (ProblemResponse e) {
                send(request, problemResponse(e));
            }
        }
        catch (IOException e) {
            throw e;
        }
        catch (Exception e) {
            throw new IOException(line, e);
        }
    }

    /**
     * "METHOD /path?query"; plans from memory and foreign sinks have their own path, and
     * confirmations of announcements their own method.
     */
    private static String line(HttpExchange request, byte[] body)
    {
        String line = request.getRequestMethod() + " " + request.getRequestURI();
        if (request.getRequestHeaders().containsKey("If-None-Match")
                && request.getRequestHeaders().containsKey("Stopover-Exchange")) {
            return line.replace("PUT ", "CONFIRM ");
        }
        if (request.getRequestHeaders().containsKey("Stopover-Foreign")) {
            return line.replace("/pages?", "/foreign-pages?");
        }
        return line.endsWith("/handles") && new String(body, UTF_8).contains("from_memory")
                ? line.replace("/handles", "/hot-handles")
                : line;
    }

    private void handle(HttpExchange request, String line, byte[] body)
            throws Exception
    {
        request.getResponseHeaders().set("Stopover-Run", run);
        boolean probe = PROBE.matcher(line).matches();
        for (Injected injected : faults) {
            if (probe && !injected.request().pattern().startsWith("GET /")) {
                continue;
            }
            if (injected.request().matcher(line).find() && faults.remove(injected)) {
                injected.fault().apply(this, request, body);
                return;
            }
        }
        Optional<Fault> random = chaos.get();
        if (random.isPresent()) {
            random.get().apply(this, request, body);
            return;
        }
        String bearer = request.getRequestHeaders().getFirst("Authorization");
        boolean open = line.equals("GET /readyz");
        if (!open && token != null && !("Bearer " + token).equals(bearer)) {
            throw new ProblemResponse("unauthorized", 401, false);
        }
        if (!probe) {
            checkProtocol(request);
        }
        send(request, serve(request, body));
    }

    private void checkProtocol(HttpExchange request)
    {
        String header = request.getRequestHeaders().getFirst("Stopover-Protocol");
        if (header != null) {
            int protocol = Integer.parseInt(header);
            if (protocol < oldestProtocol || protocol > newestProtocol) {
                throw new ProblemResponse("unsupported-protocol", 400, false);
            }
        }
    }

    String run()
    {
        return run;
    }

    /** Attempts with pages that are neither committed nor aborted. */
    public Set<String> openSinks()
    {
        return Set.copyOf(sinks.keySet());
    }

    /** Commits an attempt of one page, as if a client had written it here. */
    void commit(String exchange, int task, int attempt, int pageSize)
    {
        String key = task + "/" + attempt;
        byte[] frame = ByteBuffer.allocate(12 + pageSize).order(LITTLE_ENDIAN)
                .putInt(4, pageSize)
                .array();
        CRC32C crc = new CRC32C();
        crc.update(frame, 0, 8);
        crc.update(frame, 12, pageSize);
        ByteBuffer.wrap(frame).order(LITTLE_ENDIAN).putInt(8, (int) crc.getValue());
        announced(exchange).committed.put(key, List.of(frame));
        committedHere.add(exchange + "/" + key);
    }

    /** Loses everything in memory, as a process that is killed and started again. */
    void restart()
    {
        sinks.clear();
        committedHere.clear();
        declared.clear();
        run = "%016x".formatted(RUNS.incrementAndGet());
    }

    private void send(HttpExchange request, Response response)
            throws IOException
    {
        request.sendResponseHeaders(
                response.status(), response.body().length == 0 ? -1 : response.body().length);
        if (response.body().length > 0) {
            request.getResponseBody().write(response.body());
        }
        request.close();
    }

    private Response problemResponse(ProblemResponse e)
    {
        String problem = """
                {"type": "urn:stopover:problem:%s", "title": "%s", "status": %s, \
                "detail": "by the test", "retryable": %s}"""
                .formatted(e.slug, e.slug, e.status, e.retryable);
        return new Response(e.status, problem.getBytes(UTF_8));
    }

    private static String descriptor(String exchange)
    {
        return "descriptor-of-" + exchange;
    }

    private void checkDescriptor(HttpExchange request, String exchange)
    {
        String header = request.getRequestHeaders().getFirst("Stopover-Exchange");
        if (header == null) {
            undescribed.add(request.getRequestMethod() + " " + request.getRequestURI().getPath());
        }
        else if (!header.equals(descriptor(exchange))) {
            throw new ProblemResponse("invalid-request", 400, false);
        }
    }

    private Response serve(HttpExchange request, byte[] body)
    {
        String path = request.getRequestURI().getPath();
        if (path.startsWith("/v1/exchanges/")) {
            checkDescriptor(request, path.split("/")[3]);
        }
        Matcher sink = SINK.matcher(path);
        if (sink.matches()) {
            String key = Integer.parseInt(sink.group(2)) + "/" + Integer.parseInt(sink.group(3));
            return switch (sink.group(4)) {
                case null -> request.getRequestMethod().equals("DELETE")
                        ? withdraw(sink.group(1) + "/" + key)
                        : declare(sink.group(1), key);
                case "pages" -> pages(sink.group(1), key, query(request, "batch"), body);
                case "finish" -> finish(sink.group(1), key, new String(body, UTF_8));
                default -> abort(sink.group(1), key);
            };
        }
        if (path.equals("/readyz")) {
            return json("{\"ready\": true, \"draining\": false, \"base_directories\": [%s]}",
                    baseDirectories);
        }
        if (path.equals("/v1/daemon")) {
            return json("""
                    {"run": "%s", "version": "%s", "protocol": {"oldest": %s, "newest": %s},
                     "handles": {"oldest": 1, "newest": %s},
                     "limits": {"max_batch_size": %s, "max_page_size": %s, "max_partitions": %s},
                     "base_directories": [%s], "missing_base_directories": [%s],
                     "advertise": [%s], "zone": %s}""",
                    run, version, oldestProtocol, newestProtocol, handleVersion,
                    maxBatchSize, maxPageSize, maxPartitions, baseDirectories,
                    missingBaseDirectories, advertise, quoted(zone));
        }
        if (path.equals("/v1/read")) {
            return new Response(200, read(new String(body, UTF_8), query(request, "skip")));
        }
        Matcher exchange = EXCHANGE.matcher(path);
        if (!exchange.matches()) {
            throw new ProblemResponse("not-found", 404, false);
        }
        if ("/chosen".equals(exchange.group(2))) {
            return chosen(new String(body, UTF_8));
        }
        return switch (request.getRequestMethod()) {
            case "PUT" -> {
                boolean renewal = "*".equals(request.getRequestHeaders().getFirst("If-Match"));
                yield announce(exchange.group(1), new String(body, UTF_8), renewal);
            }
            case "DELETE" -> delete(exchange.group(1));
            default -> handles(exchange.group(1), new String(body, UTF_8));
        };
    }

    private static long query(HttpExchange request, String name)
    {
        return Long.parseLong(
                request.getRequestURI().getQuery().replaceFirst("^" + name + "=", ""));
    }

    private Response withdraw(String sink)
    {
        declared.remove(sink);
        return new Response(204, new byte[0]);
    }

    private synchronized Response declare(String exchange, String key)
    {
        if (!store.exchanges.containsKey(exchange)) {
            throw new ProblemResponse("exchange-not-found", 404, false);
        }
        String sink = exchange + "/" + key;
        if (!sinks.containsKey(sink) && !committedHere.contains(sink)) {
            declared.add(sink);
        }
        return new Response(204, new byte[0]);
    }

    private Response announce(String exchange, String properties, boolean renewal)
    {
        if (store.closed.contains(exchange)) {
            throw new ProblemResponse("exchange-closed", 410, false);
        }
        if (renewal && !store.exchanges.containsKey(exchange)) {
            throw new ProblemResponse("exchange-not-found", 404, false);
        }
        Announced announced =
                store.exchanges.computeIfAbsent(exchange, _ -> new Announced(properties));
        if (!announced.properties.equals(properties)) {
            throw new ProblemResponse("exchange-conflict", 409, false);
        }
        return json(
                "{\"exchange\": \"%s\", \"lease_seconds\": %s, \"descriptor\": \"%s\"}",
                exchange, leaseSeconds, descriptor(exchange));
    }

    private Response delete(String exchange)
    {
        store.closed.add(exchange);
        store.exchanges.remove(exchange);
        return new Response(204, new byte[0]);
    }

    private Response chosen(String body)
    {
        chosen.add(body);
        return new Response(204, new byte[0]);
    }

    private Announced announced(String exchange)
    {
        Announced announced = store.exchanges.get(exchange);
        if (announced == null) {
            boolean closed = store.closed.contains(exchange);
            throw closed
                    ? new ProblemResponse("exchange-closed", 410, false)
                    : new ProblemResponse("exchange-not-found", 404, false);
        }
        return announced;
    }

    private synchronized Response pages(String exchange, String key, long batch, byte[] body)
    {
        announced(exchange);
        OpenSink sink = sinks.computeIfAbsent(
                exchange + "/" + key,
                _ -> new OpenSink(new ArrayList<>(), new ArrayList<>()));
        declared.remove(exchange + "/" + key);
        if (batch > sink.batches().size()) {
            throw new ProblemResponse("batch-out-of-order", 409, false);
        }
        boolean repeated = batch < sink.batches().size();
        if (!repeated) {
            sink.frames().addAll(splitFrames(body));
            sink.batches().add((long) body.length);
        }
        return json("{\"batch\": %s, \"next\": %s, \"repeated\": %s}", batch, batch + 1, repeated);
    }

    private synchronized Response finish(String exchange, String key, String totals)
    {
        Announced announced = announced(exchange);
        OpenSink sink = sinks.remove(exchange + "/" + key);
        if (sink == null && totals.contains("\"batches\": 0")) {
            sink = new OpenSink(List.of(), List.of());
            declared.remove(exchange + "/" + key);
        }
        if (sink != null) {
            String counted = countTotals(sink.frames(), sink.batches().size());
            if (!counted.equals(totals)) {
                throw new ProblemResponse("count-mismatch", 409, false);
            }
            announced.committed.put(key, List.copyOf(sink.frames()));
            committedHere.add(exchange + "/" + key);
        }
        List<byte[]> committed = announced.committed.get(key);
        if (committed == null) {
            throw new ProblemResponse("sink-not-found", 404, false);
        }
        return json("{\"state\": \"finished\", \"pages\": %s, \"bytes\": %s}", committed.size(),
                pageBytes(committed));
    }

    private synchronized Response abort(String exchange, String key)
    {
        sinks.remove(exchange + "/" + key);
        declared.remove(exchange + "/" + key);
        return json("{\"state\": \"aborted\"}");
    }

    private Response handles(String exchange, String body)
    {
        planned.add(body);
        Announced announced = announced(exchange);
        Matcher newest = Pattern.compile("\"handle_version\": (\\d+)").matcher(body);
        if (newest.find() && Integer.parseInt(newest.group(1)) < handleVersion) {
            throw new ProblemResponse("unsupported-protocol", 400, false);
        }
        boolean fromMemory = body.contains("\"from_memory\": true");
        List<String> unknown = new ArrayList<>();
        Map<Integer, List<String>> byPartition = new TreeMap<>();
        Matcher attempts = Pattern.compile("\\[(\\d+),(\\d+)]").matcher(body);
        while (attempts.find()) {
            String key = attempts.group(1) + "/" + attempts.group(2);
            List<byte[]> frames = announced.committed.get(key);
            if (fromMemory && !(remembers && committedHere.contains(exchange + "/" + key))) {
                unknown.add(attempts.group());
                continue;
            }
            if (frames == null) {
                throw new ProblemResponse("attempt-not-committed", 409, false);
            }
            for (int i = 0; i < frames.size(); i++) {
                byPartition.computeIfAbsent(partition(frames.get(i)), _ -> new ArrayList<>())
                        .add(key + "/" + i);
            }
        }
        StringBuilder lines = new StringBuilder();
        if (fromMemory) {
            lines.append("{\"unknown\": [%s]}\n".formatted(String.join(",", unknown)));
        }
        int count = 0;
        for (Map.Entry<Integer, List<String>> entry : byPartition.entrySet()) {
            for (int from = 0; from < entry.getValue().size(); from += pagesPerHandle) {
                int end = (int) Math.min(entry.getValue().size(), (long) from + pagesPerHandle);
                List<String> pages = entry.getValue().subList(from, end);
                String handle = Base64.getUrlEncoder().withoutPadding().encodeToString(
                        (exchange + " " + String.join(" ", pages)).getBytes(UTF_8));
                long bytes = pages.stream().mapToLong(page -> frame(exchange, page).length - 12)
                        .sum();
                lines.append(
                        "{\"handle\": \"%s\", \"partition\": %s, \"bytes\": %s, \"pages\": %s}\n"
                        .formatted(handle, entry.getKey(), bytes, pages.size()));
                count++;
            }
        }
        return json("%s{\"end\": true, \"handles\": %s}\n", lines, count);
    }

    private byte[] frame(String exchange, String page)
    {
        int cut = page.lastIndexOf('/');
        return announced(exchange).committed.get(page.substring(0, cut))
                .get(Integer.parseInt(page.substring(cut + 1)));
    }

    private byte[] read(String handle, long skip)
    {
        String[] parts = new String(Base64.getUrlDecoder().decode(handle), UTF_8).split(" ");
        if (skip > parts.length - 1) {
            throw new ProblemResponse("invalid-request", 400, false);
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        long bytes = 0;
        int blocks = 0;
        for (int i = 1 + (int) skip; i < parts.length; i++) {
            byte[] frame = frame(parts[0], parts[i]);
            String[] names = parts[i].split("/");
            out.writeBytes(record(ByteBuffer.allocate(32).order(LITTLE_ENDIAN)
                    .putInt(0xFFFF_FFF0).putInt(partition(frame))
                    .putInt(Integer.parseInt(names[0])).putInt(Integer.parseInt(names[1]))
                    .putInt(1).putLong(frame.length)));
            out.writeBytes(frame);
            blocks++;
            bytes += frame.length - 12;
        }
        out.writeBytes(record(ByteBuffer.allocate(32).order(LITTLE_ENDIAN)
                .putInt(0xFFFF_FFF1).putInt(blocks).putLong(blocks).putLong(bytes).putInt(0)));
        return out.toByteArray();
    }

    private static byte[] record(ByteBuffer fields)
    {
        CRC32C crc = new CRC32C();
        crc.update(fields.array(), 0, 28);
        return fields.putInt(28, (int) crc.getValue()).array();
    }

    private static List<byte[]> splitFrames(byte[] batch)
    {
        List<byte[]> frames = new ArrayList<>();
        ByteBuffer in = ByteBuffer.wrap(batch).order(LITTLE_ENDIAN);
        while (in.hasRemaining()) {
            byte[] frame = new byte[12 + in.getInt(in.position() + 4)];
            in.get(frame);
            CRC32C crc = new CRC32C();
            crc.update(frame, 0, 8);
            crc.update(frame, 12, frame.length - 12);
            if ((int) crc.getValue() != ByteBuffer.wrap(frame).order(LITTLE_ENDIAN).getInt(8)) {
                throw new ProblemResponse("checksum-mismatch", 400, true);
            }
            frames.add(frame);
        }
        return frames;
    }

    private static int partition(byte[] frame)
    {
        return ByteBuffer.wrap(frame).order(LITTLE_ENDIAN).getInt(0);
    }

    private static long pageBytes(List<byte[]> frames)
    {
        return frames.stream().mapToLong(frame -> frame.length - 12).sum();
    }

    private static String countTotals(List<byte[]> frames, int batches)
    {
        CRC32C checksum = new CRC32C();
        frames.forEach(frame -> checksum.update(frame, 8, 4));
        return "{\"batches\": %s, \"pages\": %s, \"bytes\": %s, \"checksum\": %s}"
                .formatted(batches, frames.size(), pageBytes(frames), checksum.getValue());
    }

    private static Response json(String format, Object... arguments)
    {
        return new Response(200, format.formatted(arguments).getBytes(UTF_8));
    }
}
