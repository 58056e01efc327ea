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
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

import static java.util.Objects.requireNonNull;
import static java.util.stream.Collectors.joining;

/**
 * The routes of the protocol, each one request to one daemon; blocks the calling thread. What is
 * asked again, where and how long, is for the callers to say.
 */
public final class DaemonClient
{
    private static final int MAX_ANSWER_SIZE = 1024 * 1024;
    private static final ContentType JSON = ContentType.create("application/json");
    private static final ContentType TEXT = ContentType.create("text/plain");

    private final HttpTransport transport;
    private final Limits control;
    private final Limits handles;
    private final Limits write;
    private final Limits read;
    private final int maxPageSize;

    @Inject
    public DaemonClient(HttpTransport transport, StopoverConfig config)
    {
        this.transport = requireNonNull(transport, "transport is null");
        this.control =
                new Limits(config.getRequestTimeout(), Optional.of(config.getRequestTimeout()));
        this.handles = new Limits(config.getReadTimeout(), Optional.empty());
        this.write = new Limits(config.getWriteTimeout(), Optional.of(config.getWriteTimeout()));
        this.read = new Limits(config.getReadTimeout(), Optional.empty());
        this.maxPageSize = Math.toIntExact(config.getMaxPageSize().toBytes());
    }

    /** Announces an exchange; returns the lease's seconds. */
    public long announce(
            URI daemon, String exchange, int partitions, boolean ordered, Cancellation cancellation)
            throws IOException
    {
        return put(daemon, exchange, partitions, ordered, false, cancellation);
    }

    /**
     * Renews the lease of an exchange; one that is not open any more is not announced anew, since
     * it would be empty.
     */
    public long renew(
            URI daemon, String exchange, int partitions, boolean ordered, Cancellation cancellation)
            throws IOException
    {
        return put(daemon, exchange, partitions, ordered, true, cancellation);
    }

    private long put(
            URI daemon,
            String exchange,
            int partitions,
            boolean ordered,
            boolean mustExist,
            Cancellation cancellation)
            throws IOException
    {
        String body = "{\"partitions\": %s, \"ordered\": %s}".formatted(partitions, ordered);
        JsonMap answer = transport.execute(
                daemon,
                () -> {
                    HttpPut put = new HttpPut(daemon + "/v1/exchanges/" + exchange);
                    if (mustExist) {
                        put.setHeader("If-Match", "*");
                    }
                    return json(put, body);
                },
                control,
                cancellation,
                DaemonClient::readJson);
        long seconds = answer.integer("lease_seconds");
        if (seconds < 1) {
            throw new MalformedJsonException(
                    "%s answers a lease of %s seconds".formatted(daemon, seconds));
        }
        return seconds;
    }

    /** Removes all of an exchange. */
    public void close(URI daemon, String exchange, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> new HttpDelete(daemon + "/v1/exchanges/" + exchange),
                control,
                cancellation,
                _ -> null);
    }

    /** Says that an attempt will be written at this daemon. */
    public void declareSink(URI daemon, SinkId sink, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> new HttpPut(daemon + sink.path()),
                control,
                cancellation,
                _ -> null);
    }

    public void pages(
            URI daemon, SinkId sink, long number, PageBatch batch, Cancellation cancellation)
            throws IOException
    {
        JsonMap answer = transport.execute(
                daemon,
                () -> {
                    HttpPost post = new HttpPost(daemon + sink.path() + "/pages?batch=" + number);
                    post.setEntity(new PageBatchEntity(batch));
                    return post;
                },
                write,
                cancellation,
                DaemonClient::readJson);
        if (answer.integer("batch") != number) {
            throw new MalformedJsonException(
                    "%s answers batch %s, sent was %s"
                            .formatted(daemon, answer.integer("batch"), number));
        }
    }

    /** Returns once the attempt is committed with just these totals. */
    public void finish(URI daemon, SinkId sink, SinkTotals totals, Cancellation cancellation)
            throws IOException
    {
        String body = "{\"batches\": %s, \"pages\": %s, \"bytes\": %s, \"checksum\": %s}".formatted(
                totals.batches(), totals.pages(), totals.bytes(), totals.checksum());
        JsonMap answer = transport.execute(
                daemon,
                () -> json(new HttpPost(daemon + sink.path() + "/finish"), body),
                write,
                cancellation,
                DaemonClient::readJson);
        if (answer.integer("pages") != totals.pages()
                || answer.integer("bytes") != totals.bytes()) {
            throw new MalformedJsonException(
                    "%s committed %s pages, %s bytes for %s; sent were %s pages, %s bytes"
                            .formatted(
                            daemon,
                            answer.integer("pages"),
                            answer.integer("bytes"),
                            sink,
                            totals.pages(),
                            totals.bytes()));
        }
    }

    public void abort(URI daemon, SinkId sink, Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> new HttpPost(daemon + sink.path() + "/abort"),
                control,
                cancellation,
                _ -> null);
    }

    /** Plans the handles of the chosen attempt of each task. */
    public List<PlannedHandle> handles(
            URI daemon,
            String exchange,
            Map<Integer, Integer> attempts,
            long targetSize,
            Cancellation cancellation)
            throws IOException
    {
        String body = attempts.entrySet().stream()
                .map(entry -> "[%s,%s]".formatted(entry.getKey(), entry.getValue()))
                .collect(joining(
                        ",", "{\"attempts\": [", "], \"target_size\": " + targetSize + "}"));
        return transport.execute(
                daemon,
                () -> json(new HttpPost(daemon + "/v1/exchanges/" + exchange + "/handles"), body),
                handles,
                cancellation,
                response -> readHandles(daemon, response));
    }

    /** Reads the pages of a handle from page {@code skip} on; returns after the end record. */
    public void read(
            URI daemon,
            String handle,
            long skip,
            ReadStream.Visitor visitor,
            Cancellation cancellation)
            throws IOException
    {
        transport.execute(
                daemon,
                () -> {
                    HttpPost post = new HttpPost(daemon + "/v1/read?skip=" + skip);
                    post.setEntity(new StringEntity(handle, TEXT));
                    return post;
                },
                read,
                cancellation,
                response -> {
                    ReadStream.ErrorReader errors = problem -> streamError(daemon, problem);
                    new ReadStream(body(response), maxPageSize, visitor, errors).readFully();
                    return null;
                });
    }

    private static List<PlannedHandle> readHandles(URI daemon, ClassicHttpResponse response)
            throws IOException
    {
        List<PlannedHandle> handles = new ArrayList<>();
        try (JsonParser lines = JsonMap.parser(body(response))) {
            while (true) {
                JsonMap line = JsonMap.next(lines).orElseThrow(() -> new EOFException(
                        "%s: the list of source handles ends without its end line"
                                .formatted(daemon)));
                if (line.has("error")) {
                    throw new ProblemException(daemon, Problem.of(line.object("error"), 500));
                }
                if (line.has("end")) {
                    if (line.integer("handles") != handles.size()) {
                        throw new MalformedStreamException("%s announced %s source handles, %s came"
                                .formatted(daemon, line.integer("handles"), handles.size()));
                    }
                    return handles;
                }
                handles.add(new PlannedHandle(
                        line.string("handle"),
                        Math.toIntExact(line.integer("partition")),
                        line.integer("bytes"),
                        line.integer("pages")));
            }
        }
    }

    private static IOException streamError(URI daemon, byte[] problem)
    {
        return new ProblemException(daemon, Problem.parse(500, problem));
    }

    private static HttpUriRequestBase json(HttpUriRequestBase request, String body)
    {
        request.setEntity(new StringEntity(body, JSON));
        return request;
    }

    private static JsonMap readJson(ClassicHttpResponse response)
            throws IOException
    {
        return JsonMap.parse(body(response).readNBytes(MAX_ANSWER_SIZE));
    }

    private static InputStream body(ClassicHttpResponse response)
            throws IOException
    {
        if (response.getEntity() == null) {
            throw new MalformedStreamException("an answer without a body");
        }
        return response.getEntity().getContent();
    }
}
