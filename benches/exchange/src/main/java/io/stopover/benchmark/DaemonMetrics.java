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
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;

/** Reads from the daemons' metrics how long their puts into base directories took. */
final class DaemonMetrics
{
    private static final String DURATION = "stopover_storage_request_duration_seconds_";

    /**
     * @param count number of puts
     * @param seconds total duration of the puts
     */
    record Puts(double count, double seconds)
    {
        Puts minus(Puts earlier)
        {
            return new Puts(count - earlier.count, seconds - earlier.seconds);
        }
    }

    private final List<URI> daemons;

    DaemonMetrics(List<URI> daemons)
    {
        this.daemons = List.copyOf(daemons);
    }

    Puts puts()
    {
        return new Puts(sum("count"), sum("sum"));
    }

    private double sum(String suffix)
    {
        return daemons.stream().flatMap(daemon -> metrics(daemon).lines())
                .filter(line -> line.startsWith(DURATION + suffix)
                        && line.contains("operation=\"put\""))
                .mapToDouble(line ->
                        Double.parseDouble(line.substring(line.lastIndexOf(' ') + 1)))
                .sum();
    }

    private static String metrics(URI daemon)
    {
        try (HttpClient client = HttpClient.newHttpClient()) {
            HttpRequest request = HttpRequest.newBuilder(daemon.resolve("/metrics")).build();
            return client.send(request, BodyHandlers.ofString()).body();
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }
}
