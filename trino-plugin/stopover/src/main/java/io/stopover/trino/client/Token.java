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

import com.google.inject.Inject;
import io.airlift.log.Logger;
import io.stopover.trino.StopoverConfig;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * The bearer token, if configured. A token file is read at start, where an unreadable one is an
 * error, and again whenever a daemon rejects the token, so that it can be rotated while Trino runs.
 */
public final class Token
{
    private static final Logger log = Logger.get(Token.class);

    private final Optional<Path> file;
    private volatile Optional<String> value;

    @Inject
    public Token(StopoverConfig config)
    {
        file = config.getTokenFile();
        value = config.getToken();
        if (file.isPresent()) {
            value = Optional.of(read(file.get()));
        }
    }

    Optional<String> value()
    {
        return value;
    }

    /** @return whether the token now differs from the rejected one */
    boolean reloadAfterRefusal(Optional<String> used)
    {
        if (file.isPresent() && value.equals(used)) {
            try {
                value = Optional.of(read(file.get()));
            }
            catch (IllegalArgumentException e) {
                log.warn(e, "A daemon rejected the token, and the token file has no other");
            }
        }
        return !value.equals(used);
    }

    private static String read(Path path)
    {
        try {
            String token = Files.readString(path).strip();
            if (token.isEmpty()) {
                throw new IllegalArgumentException(
                        "stopover.token-file: %s is empty".formatted(path));
            }
            return token;
        }
        catch (IOException e) {
            throw new IllegalArgumentException(
                    "stopover.token-file: cannot read %s: %s".formatted(path, e), e);
        }
    }
}
