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

import com.google.common.base.Splitter;
import com.google.common.collect.ImmutableList;
import io.airlift.configuration.Config;
import io.airlift.configuration.ConfigDescription;
import io.airlift.configuration.ConfigSecuritySensitive;
import io.airlift.units.DataSize;
import io.airlift.units.Duration;
import io.airlift.units.MaxDataSize;
import io.airlift.units.MinDataSize;
import io.airlift.units.MinDuration;
import jakarta.validation.constraints.AssertTrue;
import jakarta.validation.constraints.Max;
import jakarta.validation.constraints.Min;
import jakarta.validation.constraints.NotEmpty;
import jakarta.validation.constraints.NotNull;
import jakarta.validation.constraints.Pattern;

import java.net.URI;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

import static com.google.common.collect.ImmutableList.toImmutableList;
import static io.airlift.units.DataSize.Unit.MEGABYTE;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.MINUTES;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * All properties of the plugin except TLS. {@code docs/plugin.md} documents each one and the reason
 * for its default.
 */
public class StopoverConfig
{
    private ImmutableList<URI> uris = ImmutableList.of();
    private String invalidUri;
    private Optional<String> zone = Optional.empty();
    private Optional<String> token = Optional.empty();
    private Optional<Path> tokenFile = Optional.empty();
    private DataSize batchSize = DataSize.of(4, MEGABYTE);
    private DataSize sinkMaxBuffered = DataSize.of(16, MEGABYTE);
    private DataSize sourceHandleTargetSize = DataSize.of(64, MEGABYTE);
    private int readConcurrency = 4;
    private DataSize readBufferSize = DataSize.of(32, MEGABYTE);
    private DataSize maxPageSize = DataSize.of(16, MEGABYTE);
    private boolean homesEnabled = true;
    private Duration homeTimeout = new Duration(5, SECONDS);
    private Duration connectTimeout = new Duration(5, SECONDS);
    private Duration requestTimeout = new Duration(30, SECONDS);
    private Duration writeTimeout = new Duration(5, MINUTES);
    private Duration readTimeout = new Duration(2, MINUTES);
    private Duration coordinatorRetryTime = new Duration(150, SECONDS);
    private Duration sinkRetryTime = new Duration(30, SECONDS);
    private Duration readRetryTime = new Duration(2, MINUTES);
    private Duration retryInitialDelay = new Duration(100, MILLISECONDS);
    private Duration retryMaxDelay = new Duration(5, SECONDS);
    private Duration daemonCooldown = new Duration(1, SECONDS);
    private Duration daemonMaxCooldown = new Duration(30, SECONDS);

    @NotEmpty(message =
            "stopover.uris must name at least one daemon, such as http://127.0.0.1:7077")
    public List<URI> getUris()
    {
        return uris;
    }

    @Config("stopover.uris")
    @ConfigDescription(
            "Daemon URIs, comma-separated; those on this machine first")
    public StopoverConfig setUris(String uris)
    {
        this.uris = Splitter.on(',').trimResults().omitEmptyStrings().splitToStream(uris)
                .map(this::parseUri)
                .flatMap(Optional::stream)
                .distinct()
                .collect(toImmutableList());
        return this;
    }

    private Optional<URI> parseUri(String text)
    {
        try {
            URI uri = new URI(text.endsWith("/") ? text.substring(0, text.length() - 1) : text);
            boolean http = "http".equalsIgnoreCase(uri.getScheme())
                    || "https".equalsIgnoreCase(uri.getScheme());
            if (http && uri.getHost() != null
                    && uri.getRawUserInfo() == null && uri.getRawPath().isEmpty()
                    && uri.getRawQuery() == null && uri.getRawFragment() == null) {
                return Optional.of(uri);
            }
        }
        catch (URISyntaxException e) {
            // isUrisValid reports it with the property's name
        }
        invalidUri = text;
        return Optional.empty();
    }

    @AssertTrue(message =
            "stopover.uris must be a comma-separated list of http://host:port or https://host:port")
    public boolean isUrisValid()
    {
        return invalidUri == null;
    }

    public Optional<@Pattern(regexp = "[A-Za-z0-9._-]{1,64}", message =
            "stopover.zone must be 1 to 64 letters, digits, hyphens, dots and underscores") String>
            getZone()
    {
        return zone;
    }

    @Config("stopover.zone")
    @ConfigDescription("Availability zone of this node; daemons of the same zone are preferred")
    public StopoverConfig setZone(String zone)
    {
        this.zone = Optional.ofNullable(zone);
        return this;
    }

    public Optional<String> getToken()
    {
        return token;
    }

    @Config("stopover.token")
    @ConfigSecuritySensitive
    @ConfigDescription("Bearer token for the daemons")
    public StopoverConfig setToken(String token)
    {
        this.token = Optional.ofNullable(token);
        return this;
    }

    public Optional<Path> getTokenFile()
    {
        return tokenFile;
    }

    @Config("stopover.token-file")
    @ConfigDescription(
            "File that contains the bearer token; reread when a daemon rejects the token")
    public StopoverConfig setTokenFile(String tokenFile)
    {
        this.tokenFile = Optional.ofNullable(tokenFile).map(Path::of);
        return this;
    }

    @AssertTrue(message =
            "stopover.token and stopover.token-file are mutually exclusive: set only one of them")
    public boolean isTokenUnambiguous()
    {
        return token.isEmpty() || tokenFile.isEmpty();
    }

    @AssertTrue(message = "stopover.token is empty: set a token or remove the property")
    public boolean isTokenNotEmpty()
    {
        return token.map(value -> !value.isBlank()).orElse(true);
    }

    @NotNull
    @MinDataSize("64kB")
    @MaxDataSize("64MB")
    public DataSize getBatchSize()
    {
        return batchSize;
    }

    @Config("stopover.batch-size")
    @ConfigDescription("Page bytes that a sink sends in one request")
    public StopoverConfig setBatchSize(DataSize batchSize)
    {
        this.batchSize = batchSize;
        return this;
    }

    @NotNull
    @MinDataSize("64kB")
    @MaxDataSize("1GB")
    public DataSize getSinkMaxBuffered()
    {
        return sinkMaxBuffered;
    }

    @Config("stopover.sink-max-buffered")
    @ConfigDescription("Buffered bytes at which a sink reports itself as blocked")
    public StopoverConfig setSinkMaxBuffered(DataSize sinkMaxBuffered)
    {
        this.sinkMaxBuffered = sinkMaxBuffered;
        return this;
    }

    @AssertTrue(message = "stopover.sink-max-buffered must not be less than stopover.batch-size")
    public boolean isSinkMaxBufferedValid()
    {
        return sinkMaxBuffered == null || batchSize == null
                || sinkMaxBuffered.compareTo(batchSize) >= 0;
    }

    @NotNull
    @MinDataSize("1MB")
    @MaxDataSize("1TB")
    public DataSize getSourceHandleTargetSize()
    {
        return sourceHandleTargetSize;
    }

    @Config("stopover.source-handle-target-size")
    @ConfigDescription("Approximate page bytes covered by one source handle")
    public StopoverConfig setSourceHandleTargetSize(DataSize sourceHandleTargetSize)
    {
        this.sourceHandleTargetSize = sourceHandleTargetSize;
        return this;
    }

    @Min(1)
    @Max(64)
    public int getReadConcurrency()
    {
        return readConcurrency;
    }

    @Config("stopover.read-concurrency")
    @ConfigDescription("Source handles that one source reads concurrently")
    public StopoverConfig setReadConcurrency(int readConcurrency)
    {
        this.readConcurrency = readConcurrency;
        return this;
    }

    @NotNull
    @MinDataSize("64kB")
    @MaxDataSize("1GB")
    public DataSize getReadBufferSize()
    {
        return readBufferSize;
    }

    @Config("stopover.read-buffer-size")
    @ConfigDescription("Memory that one source may use for read-ahead")
    public StopoverConfig setReadBufferSize(DataSize readBufferSize)
    {
        this.readBufferSize = readBufferSize;
        return this;
    }

    @NotNull
    @MinDataSize("64kB")
    @MaxDataSize("1GB")
    public DataSize getMaxPageSize()
    {
        return maxPageSize;
    }

    @Config("stopover.max-page-size")
    @ConfigDescription(
            "Maximum page size; limits.max_page_size of the daemons must be at least as large")
    public StopoverConfig setMaxPageSize(DataSize maxPageSize)
    {
        this.maxPageSize = maxPageSize;
        return this;
    }

    public boolean isHomesEnabled()
    {
        return homesEnabled;
    }

    @Config("stopover.homes")
    @ConfigDescription("Gather small outputs of several nodes at one daemon")
    public StopoverConfig setHomesEnabled(boolean homesEnabled)
    {
        this.homesEnabled = homesEnabled;
        return this;
    }

    @NotNull
    @MinDuration("10ms")
    public Duration getHomeTimeout()
    {
        return homeTimeout;
    }

    @Config("stopover.home-timeout")
    @ConfigDescription(
            "Timeout of a request to a daemon that is not the preferred one, which is the fallback")
    public StopoverConfig setHomeTimeout(Duration homeTimeout)
    {
        this.homeTimeout = homeTimeout;
        return this;
    }

    @NotNull
    @MinDuration("10ms")
    public Duration getConnectTimeout()
    {
        return connectTimeout;
    }

    @Config("stopover.connect-timeout")
    @ConfigDescription("Timeout for connecting to a daemon")
    public StopoverConfig setConnectTimeout(Duration connectTimeout)
    {
        this.connectTimeout = connectTimeout;
        return this;
    }

    @NotNull
    @MinDuration("100ms")
    public Duration getRequestTimeout()
    {
        return requestTimeout;
    }

    @Config("stopover.request-timeout")
    @ConfigDescription("Timeout of a request that carries no pages, except finish")
    public StopoverConfig setRequestTimeout(Duration requestTimeout)
    {
        this.requestTimeout = requestTimeout;
        return this;
    }

    @NotNull
    @MinDuration("100ms")
    public Duration getWriteTimeout()
    {
        return writeTimeout;
    }

    @Config("stopover.write-timeout")
    @ConfigDescription("Timeout of a batch or finish request, backpressure included")
    public StopoverConfig setWriteTimeout(Duration writeTimeout)
    {
        this.writeTimeout = writeTimeout;
        return this;
    }

    @NotNull
    @MinDuration("100ms")
    public Duration getReadTimeout()
    {
        return readTimeout;
    }

    @Config("stopover.read-timeout")
    @ConfigDescription("Time without data from the daemon after which a read is resumed")
    public StopoverConfig setReadTimeout(Duration readTimeout)
    {
        this.readTimeout = readTimeout;
        return this;
    }

    @NotNull
    public Duration getCoordinatorRetryTime()
    {
        return coordinatorRetryTime;
    }

    @Config("stopover.coordinator-retry-time")
    @ConfigDescription("How long the coordinator retries before the query fails")
    public StopoverConfig setCoordinatorRetryTime(Duration coordinatorRetryTime)
    {
        this.coordinatorRetryTime = coordinatorRetryTime;
        return this;
    }

    @NotNull
    public Duration getSinkRetryTime()
    {
        return sinkRetryTime;
    }

    @Config("stopover.sink-retry-time")
    @ConfigDescription("How long a sink retries before the task attempt fails")
    public StopoverConfig setSinkRetryTime(Duration sinkRetryTime)
    {
        this.sinkRetryTime = sinkRetryTime;
        return this;
    }

    @NotNull
    public Duration getReadRetryTime()
    {
        return readRetryTime;
    }

    @Config("stopover.read-retry-time")
    @ConfigDescription(
            "How long a source retries without receiving a page before the task attempt fails")
    public StopoverConfig setReadRetryTime(Duration readRetryTime)
    {
        this.readRetryTime = readRetryTime;
        return this;
    }

    @NotNull
    @MinDuration("1ms")
    public Duration getRetryInitialDelay()
    {
        return retryInitialDelay;
    }

    @Config("stopover.retry-initial-delay")
    @ConfigDescription("Delay before the first retry; doubled for each further retry")
    public StopoverConfig setRetryInitialDelay(Duration retryInitialDelay)
    {
        this.retryInitialDelay = retryInitialDelay;
        return this;
    }

    @NotNull
    @MinDuration("1ms")
    public Duration getRetryMaxDelay()
    {
        return retryMaxDelay;
    }

    @Config("stopover.retry-max-delay")
    @ConfigDescription("Maximum delay between retries")
    public StopoverConfig setRetryMaxDelay(Duration retryMaxDelay)
    {
        this.retryMaxDelay = retryMaxDelay;
        return this;
    }

    @AssertTrue(message =
            "stopover.retry-max-delay must not be less than stopover.retry-initial-delay")
    public boolean isRetryMaxDelayValid()
    {
        return retryMaxDelay == null || retryInitialDelay == null
                || retryMaxDelay.compareTo(retryInitialDelay) >= 0;
    }

    @NotNull
    @MinDuration("1ms")
    public Duration getDaemonCooldown()
    {
        return daemonCooldown;
    }

    @Config("stopover.daemon-cooldown")
    @ConfigDescription(
            "Time for which a failing daemon is avoided; doubles with each consecutive failure")
    public StopoverConfig setDaemonCooldown(Duration daemonCooldown)
    {
        this.daemonCooldown = daemonCooldown;
        return this;
    }

    @NotNull
    @MinDuration("1ms")
    public Duration getDaemonMaxCooldown()
    {
        return daemonMaxCooldown;
    }

    @Config("stopover.daemon-max-cooldown")
    @ConfigDescription("Longest time for which a failing daemon is avoided")
    public StopoverConfig setDaemonMaxCooldown(Duration daemonMaxCooldown)
    {
        this.daemonMaxCooldown = daemonMaxCooldown;
        return this;
    }

    @AssertTrue(message =
            "stopover.daemon-max-cooldown must not be less than stopover.daemon-cooldown")
    public boolean isDaemonMaxCooldownValid()
    {
        return daemonMaxCooldown == null || daemonCooldown == null
                || daemonMaxCooldown.compareTo(daemonCooldown) >= 0;
    }
}
