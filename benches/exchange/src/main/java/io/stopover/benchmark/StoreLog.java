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
package io.stopover.benchmark;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

import static java.nio.charset.StandardCharsets.UTF_8;

/** Counts requests in the access log of the S3 server, which has one line per request. */
final class StoreLog
{
    private static final int BUCKET = 1;
    /** Index after the action. */
    private static final int KEY = 1;
    /**
     * Index of the duration in milliseconds after the action: key, URI, status, error, bytes sent,
     * object size, duration.
     */
    private static final int MILLISECONDS = 7;

    /**
     * Requests by billing class: PUT and LIST, GET, DELETE.
     *
     * @param lists how many of the {@code puts} list
     * @param markerGets how many of the {@code gets} ask for Stopover's markers
     * @param segmentGets how many of them ask for its segments
     * @param slowestPut duration of the slowest object put at the server, in milliseconds
     */
    record Requests(
            long puts,
            long lists,
            long gets,
            long markerGets,
            long segmentGets,
            long deletes,
            long slowestPut)
    {
        static final Requests NONE = new Requests(0, 0, 0, 0, 0, 0, 0);
    }

    private final Optional<Path> log;
    private long position;

    /** @param log access log of the S3 server; empty if the store is not S3 */
    StoreLog(Optional<Path> log)
    {
        this.log = log;
    }

    /**
     * Returns the requests since the previous call to the buckets of one side, whose names begin
     * with {@code side} and a hyphen.
     */
    Requests drain(String side)
    {
        if (log.isEmpty() || !Files.exists(log.get())) {
            return Requests.NONE;
        }
        try (RandomAccessFile file = new RandomAccessFile(log.get().toFile(), "r")) {
            file.seek(position);
            byte[] added = new byte[Math.toIntExact(file.length() - position)];
            file.readFully(added);
            position += added.length;
            return count(side, new String(added, UTF_8));
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Requests count(String side, String lines)
    {
        long puts = 0;
        long lists = 0;
        long gets = 0;
        long markerGets = 0;
        long segmentGets = 0;
        long deletes = 0;
        long slowestPut = 0;
        for (String line : lines.split("\n")) {
            String[] all = line.split(" ");
            if (all.length <= BUCKET || !all[BUCKET].startsWith(side + "-")) {
                continue;
            }
            List<String> words = Arrays.stream(all)
                    .dropWhile(word -> !word.startsWith("s3_"))
                    .toList();
            String action = words.isEmpty() ? "" : words.getFirst();
            if (action.startsWith("s3_Get") || action.startsWith("s3_Head")) {
                gets++;
                markerGets += words.get(KEY).contains("v2/markers/") ? 1 : 0;
                segmentGets += words.get(KEY).contains("v2/segments/") ? 1 : 0;
            }
            else if (action.startsWith("s3_Delete") || action.startsWith("s3_Abort")) {
                deletes++;
            }
            else if (!action.isEmpty()) {
                puts++;
                lists += action.startsWith("s3_List") ? 1 : 0;
            }
            if (action.equals("s3_PutObject")) {
                slowestPut = Math.max(slowestPut, Long.parseLong(words.get(MILLISECONDS)));
            }
        }
        return new Requests(
                puts, lists, gets, markerGets, segmentGets, deletes, slowestPut);
    }
}
