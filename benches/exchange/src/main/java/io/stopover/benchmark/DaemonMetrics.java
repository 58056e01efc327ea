package io.stopover.benchmark;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;

/** How long the daemons' puts into their base directories took, from their metrics. */
final class DaemonMetrics
{
    private static final String DURATION = "stopover_storage_request_duration_seconds_";

    /**
     * @param count of puts
     * @param seconds that they took, added up
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
