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

import com.fasterxml.jackson.core.JsonParser;
import com.google.inject.Inject;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.client.HttpTransport.Limits;
import io.stopover.trino.wire.MalformedStreamException;
import io.stopover.trino.wire.PageBatch;
import io.stopover.trino.wire.ReadStream;
import io.stopover.trino.wire.SinkTotals;
import org.apache.hc.client5.http.classic.methods.HttpDelete;
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.client5.http.classic.methods.HttpPut;
import org.apache.hc.client5.http.classic.methods.HttpUriRequestBase;
import org.apache.hc.core5.http.ClassicHttpResponse;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.io.entity.StringEntity;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;

import static com.google.common.collect.ImmutableSet.toImmutableSet;
import static io.stopover.trino.wire.Counts.count;
import static java.util.Objects.requireNonNull;
import static java.util.stream.Collectors.joining;

/**
 * The routes of the protocol, each as one request to one daemon. Blocks the calling thread. Retries
 * and failover belong to {@link DaemonFailover}.
 */
public final class DaemonClient
{
    private static final int MAX_RESPONSE_SIZE = 1024 * 1024;
    private static final ContentType JSON = ContentType.create("application/json");
    private static final ContentType TEXT = ContentType.create("text/plain");

    private static final String FOREIGN_HEADER = "Stopover-Foreign";
    private static final Optional<String> MUST_EXIST = Optional.of("If-Match");
    private static final Optional<String> MUST_BE_NEW = Optional.of("If-None-Match");

    private final HttpTransport transport;
    private final Limits control;
    private final Limits write;
    private final Limits read;
    /** For requests to a daemon that is not the preferred one, which is the fallback. */
    private final Limits home;
    private final Limits homeRead;
    private final int maxPageSize;

    @Inject
    public DaemonClient(HttpTransport transport, StopoverConfig config)
    {
        this.transport = requireNonNull(transport, "transport is null");
        this.control = new Limits(
                config.getRequestTimeout(),
                Optional.of(config.getRequestTimeout()),
                "stopover.request-timeout");
        this.write = new Limits(
                config.getWriteTimeout(),
                Optional.of(config.getWriteTimeout()),
                "stopover.write-timeout");
        this.read = new Limits(config.getReadTimeout(), Optional.empty(), "stopover.read-timeout");
        this.home = new Limits(
                config.getHomeTimeout(),
                Optional.of(config.getHomeTimeout()),
                "stopover.home-timeout");
        this.homeRead =
                new Limits(config.getHomeTimeout(), Optional.empty(), "stopover.home-timeout");
        this.maxPageSize = Math.toIntExact(config.getMaxPageSize().toBytes());
    }

    /**
     * The answer to an announcement or a renewal.
     *
     * @param exchange as it is to be named in later requests
     */
    public record Announced(DescribedExchange exchange, long leaseSeconds) {}

    /**
     * Announces an exchange whose name was just created: the daemon answers at once, before it has
     * stored anything.
     */
    public Announced announceNew(
            Daemon daemon,
            String name,
            int partitions,
            boolean ordered,
            Cancellation cancellation)
            throws IOException
    {
        return put(daemon, undescribed(name), partitions, ordered, MUST_BE_NEW, cancellation);
    }

    /** As {@link #announceNew}, at a daemon that another one can stand in for. */
    public Announced announceAtHome(
            Daemon daemon,
            String name,
            int partitions,
            boolean ordered,
            Cancellation cancellation)
            throws IOException
    {
        return put(
                daemon, undescribed(name), partitions, ordered, MUST_BE_NEW, home, cancellation);
    }

    /** Announces an exchange that may have been announced to a daemon before. */
    public Announced announce(
            Daemon daemon,
            String name,
            int partitions,
            boolean ordered,
            Cancellation cancellation)
            throws IOException
    {
        return put(daemon, undescribed(name), partitions, ordered, Optional.empty(), cancellation);
    }

    /** Returns once what was announced is durable. */
    public Announced confirm(
            Daemon daemon,
            DescribedExchange exchange,
            int partitions,
            boolean ordered,
            Cancellation cancellation)
            throws IOException
    {
        return put(daemon, exchange, partitions, ordered, MUST_BE_NEW, cancellation);
    }

    /**
     * Renews the lease of an exchange. One that is no longer open is rejected: announcing it again
     * would open it empty.
     */
    public Announced renew(
            Daemon daemon,
            DescribedExchange exchange,
            int partitions,
            boolean ordered,
            Cancellation cancellation)
            throws IOException
    {
        return put(daemon, exchange, partitions, ordered, MUST_EXIST, cancellation);
    }

    private static DescribedExchange undescribed(String name)
    {
        return new DescribedExchange(name, Optional.empty());
    }

    private Announced put(
            Daemon daemon,
            DescribedExchange exchange,
            int partitions,
            boolean ordered,
            Optional<String> condition,
            Cancellation cancellation)
            throws IOException
    {
        return put(daemon, exchange, partitions, ordered, condition, control, cancellation);
    }

    private Announced put(
            Daemon daemon,
            DescribedExchange exchange,
            int partitions,
            boolean ordered,
            Optional<String> condition,
            Limits limits,
            Cancellation cancellation)
            throws IOException
    {
        String body = "{\"partitions\": %s, \"ordered\": %s}".formatted(partitions, ordered);
        return transport.execute(
                daemon,
                () -> {
                    HttpPut put = exchange.describe(new HttpPut(daemon.url(exchange.path())));
                    condition.ifPresent(header -> put.setHeader(header, "*"));
                    return json(put, body);
                },
                limits,
                cancellation,
                response -> readAnnounced(exchange.name(), response));
    }

    private static Announced readAnnounced(String exchange, ClassicHttpResponse response)
            throws IOException
    {
        JsonMap answer = readJson(response);
        long seconds = answer.integer("lease_seconds");
        if (seconds < 1) {
            throw new MalformedJsonException(
                    "the lease lasts %s".formatted(count(seconds, "second")));
        }
        return new Announced(
                new DescribedExchange(exchange, Optional.of(answer.string("descriptor"))),
                seconds);
    }

    /** Closes an exchange: the daemon deletes everything stored for it. */
    public void close(Daemon daemon, DescribedExchange exchange, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> exchange.describe(new HttpDelete(daemon.url(exchange.path()))),
                control,
                cancellation,
                _ -> null);
    }

    /** Declares that an attempt will be written at this daemon. */
    void declareSink(Daemon daemon, SinkId sink, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> sink.exchange().describe(new HttpPut(daemon.url(sink.path()))),
                control,
                cancellation,
                _ -> null);
    }

    /** Withdraws a declaration: the attempt will be written at another daemon. */
    void withdrawSink(Daemon daemon, SinkId sink, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> sink.exchange().describe(new HttpDelete(daemon.url(sink.path()))),
                control,
                cancellation,
                _ -> null);
    }

    void pages(Daemon daemon, SinkId sink, long number, PageBatch batch, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> pages(daemon, sink, number, batch),
                write,
                cancellation,
                response -> checkBatch(number, readJson(response)));
    }

    /** Sends the only batch of a small sink to its home, which refuses it instead of waiting. */
    void pagesAtHome(Daemon daemon, SinkId sink, PageBatch batch, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> {
                    HttpPost post = pages(daemon, sink, 0, batch);
                    post.setHeader(FOREIGN_HEADER, "1");
                    return post;
                },
                home,
                cancellation,
                response -> checkBatch(0, readJson(response)));
    }

    private static HttpPost pages(Daemon daemon, SinkId sink, long number, PageBatch batch)
    {
        HttpPost post = new HttpPost(daemon.url(sink.path() + "/pages?batch=" + number));
        post.setEntity(new PageBatchEntity(batch));
        return sink.exchange().describe(post);
    }

    private static Void checkBatch(long number, JsonMap response)
            throws MalformedJsonException
    {
        if (response.integer("batch") != number) {
            throw new MalformedJsonException("the response is about batch %s instead of %s"
                    .formatted(response.integer("batch"), number));
        }
        return null;
    }

    /** Returns after the attempt is committed with exactly these totals. */
    void finish(Daemon daemon, SinkId sink, SinkTotals totals, Cancellation cancellation)
            throws IOException
    {
        finish(daemon, sink, totals, write, cancellation);
    }

    /** The same within the request timeout, as there is a fallback. */
    void finishAtHome(Daemon daemon, SinkId sink, SinkTotals totals, Cancellation cancellation)
            throws IOException
    {
        finish(daemon, sink, totals, control, cancellation);
    }

    private void finish(
            Daemon daemon,
            SinkId sink,
            SinkTotals totals,
            Limits limits,
            Cancellation cancellation)
            throws IOException
    {
        String body = "{\"batches\": %s, \"pages\": %s, \"bytes\": %s, \"checksum\": %s}".formatted(
                totals.batches(), totals.pages(), totals.bytes(), totals.checksum());
        transport.execute(
                daemon,
                () -> json(post(daemon, sink, "/finish"), body),
                limits,
                cancellation,
                response -> checkTotals(totals, readJson(response)));
    }

    private static HttpPost post(Daemon daemon, SinkId sink, String action)
    {
        return sink.exchange().describe(new HttpPost(daemon.url(sink.path() + action)));
    }

    private static Void checkTotals(SinkTotals totals, JsonMap response)
            throws MalformedJsonException
    {
        long pages = response.integer("pages");
        long bytes = response.integer("bytes");
        if (pages != totals.pages() || bytes != totals.bytes()) {
            throw new MalformedJsonException(
                    "committed %s with %s instead of the %s with %s sent".formatted(
                            count(pages, "page"),
                            count(bytes, "byte"),
                            count(totals.pages(), "page"),
                            count(totals.bytes(), "byte")));
        }
        return null;
    }

    void abort(Daemon daemon, SinkId sink, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> post(daemon, sink, "/abort"),
                control,
                cancellation,
                _ -> null);
    }

    /**
     * Plans source handles for the selected attempt of each task.
     *
     * @param handleVersion newest version of handles that all daemons read, if known
     * @param asked runs of daemons that have planned what they have in memory
     */
    public List<PlannedHandle> handles(
            Daemon daemon,
            DescribedExchange exchange,
            Map<Integer, Integer> attempts,
            long targetSize,
            OptionalInt handleVersion,
            Set<String> asked,
            Cancellation cancellation)
            throws IOException
    {
        String options = "\"target_size\": " + targetSize + version(handleVersion) + asked(asked);
        return transport.execute(
                daemon,
                () -> handles(daemon, exchange, attempts, options),
                read,
                cancellation,
                response -> readHandles(response).handles());
    }

    /**
     * As {@link #handles}, only for attempts that the daemon has committed itself and still has in
     * memory: it sends no request to a base directory and does not wait.
     */
    PlanFromMemory handlesFromMemory(
            Daemon daemon,
            DescribedExchange exchange,
            Map<Integer, Integer> attempts,
            long targetSize,
            OptionalInt handleVersion,
            Cancellation cancellation)
            throws IOException
    {
        String options = "\"target_size\": %s%s, \"from_memory\": true".formatted(
                targetSize, version(handleVersion));
        return transport.execute(
                daemon,
                () -> handles(daemon, exchange, attempts, options),
                homeRead,
                cancellation,
                response -> readHandles(response));
    }

    private static HttpUriRequestBase handles(
            Daemon daemon,
            DescribedExchange exchange,
            Map<Integer, Integer> attempts,
            String options)
    {
        HttpPost post = new HttpPost(daemon.url(exchange.path() + "/handles"));
        return json(exchange.describe(post), attempts(attempts, ", " + options));
    }

    private static String attempts(Map<Integer, Integer> attempts, String options)
    {
        return attempts.entrySet().stream()
                .map(entry -> "[%s,%s]".formatted(entry.getKey(), entry.getValue()))
                .collect(joining(",", "{\"attempts\": [", "]" + options + "}"));
    }

    private static String asked(Set<String> runs)
    {
        return runs.isEmpty()
                ? ""
                : runs.stream().sorted()
                        .collect(joining("\", \"", ", \"asked_daemons\": [\"", "\"]"));
    }

    /**
     * Reports which attempts were chosen since the last call: the daemon prefetches.
     *
     * @param asked runs of daemons that will be queried themselves
     */
    public void chosen(
            Daemon daemon,
            DescribedExchange exchange,
            Map<Integer, Integer> attempts,
            Set<String> asked,
            Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> json(
                        exchange.describe(new HttpPost(daemon.url(exchange.path() + "/chosen"))),
                        attempts(attempts, asked(asked))),
                control,
                cancellation,
                _ -> null);
    }

    private static String version(OptionalInt handleVersion)
    {
        return handleVersion.isPresent()
                ? ", \"handle_version\": " + handleVersion.getAsInt()
                : "";
    }

    /** Reads the pages of a handle, except the first {@code skip}; returns after the last one. */
    public void read(
            Daemon daemon,
            String handle,
            long skip,
            ReadStream.Visitor visitor,
            Cancellation cancellation)
            throws IOException
    {
        read(daemon, handle, skip, visitor, read, cancellation);
    }

    /** The same from a daemon that has the pages in memory, with a shorter timeout. */
    public void readHot(
            Daemon daemon,
            String handle,
            long skip,
            ReadStream.Visitor visitor,
            Cancellation cancellation)
            throws IOException
    {
        read(daemon, handle, skip, visitor, homeRead, cancellation);
    }

    private void read(
            Daemon daemon,
            String handle,
            long skip,
            ReadStream.Visitor visitor,
            Limits limits,
            Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> {
                    HttpPost post = new HttpPost(daemon.url("/v1/read?skip=" + skip));
                    post.setEntity(new StringEntity(handle, TEXT));
                    return post;
                },
                limits,
                cancellation,
                response -> {
                    ReadStream.ErrorReader errors =
                            problem -> new StreamProblemException(Problem.parse(500, problem));
                    new ReadStream(body(response), maxPageSize, visitor, errors).readFully();
                    return null;
                });
    }

    private static PlanFromMemory readHandles(ClassicHttpResponse response)
            throws IOException
    {
        Set<Integer> unknown = Set.of();
        List<PlannedHandle> handles = new ArrayList<>();
        try (JsonParser lines = JsonMap.parser(body(response))) {
            while (true) {
                JsonMap line = JsonMap.next(lines).orElseThrow(() -> new EOFException(
                        "the list of source handles has no end line"));
                if (line.has("error")) {
                    throw new StreamProblemException(Problem.of(line.object("error"), 500));
                }
                if (line.has("end")) {
                    if (line.integer("handles") != handles.size()) {
                        throw new MalformedStreamException("expected %s source handles, received %s"
                                .formatted(line.integer("handles"), handles.size()));
                    }
                    return new PlanFromMemory(handles, unknown);
                }
                if (line.has("unknown")) {
                    unknown = readTasks(line.integerPairs("unknown"));
                    continue;
                }
                handles.add(new PlannedHandle(
                        line.string("handle"),
                        partition(line.integer("partition")),
                        line.integer("bytes"),
                        line.integer("pages")));
            }
        }
    }

    private static Set<Integer> readTasks(List<long[]> attempts)
    {
        return attempts.stream().map(attempt -> (int) attempt[0]).collect(toImmutableSet());
    }

    private static int partition(long number)
            throws MalformedJsonException
    {
        if (number != (int) number) {
            throw new MalformedJsonException("there is no partition %s".formatted(number));
        }
        return (int) number;
    }

    private static HttpUriRequestBase json(HttpUriRequestBase request, String body)
    {
        request.setEntity(new StringEntity(body, JSON));
        return request;
    }

    static JsonMap readJson(ClassicHttpResponse response)
            throws IOException
    {
        return JsonMap.parse(body(response).readNBytes(MAX_RESPONSE_SIZE));
    }

    private static InputStream body(ClassicHttpResponse response)
            throws IOException
    {
        if (response.getEntity() == null) {
            throw new MalformedStreamException("the response has no body");
        }
        return response.getEntity().getContent();
    }
}
